"use strict";
// Arrow keys and buttons lead from one enlarged image to the next. Opening and closing needs no script.
const all = [...document.querySelectorAll("[popover]")];
function step(by) {
  const at = all.findIndex(each => each.matches(":popover-open")), next = all[at + by];
  if (at < 0 || !next) return;
  all[at].hidePopover();
  next.showPopover();
}
for (const button of document.querySelectorAll("nav [data-step]")) {
  button.hidden = false;
  button.addEventListener("click", () => step(Number(button.dataset.step)));
}
addEventListener("keydown", event => {
  const by = {ArrowLeft: -1, ArrowRight: 1}[event.key];
  if (by) step(by);
});
