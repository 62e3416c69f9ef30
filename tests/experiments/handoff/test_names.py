"""Which image is meant by a name that came back."""

from __future__ import annotations

import pytest

from experiments.data.labels import UnusableFile
from experiments.handoff.names import ImageNames, lost_names, names_in_url


@pytest.mark.parametrize(
    ("candidate", "stem", "found"),
    [
        ("a/x.jpg", False, "a/x.jpg"),
        ("/disk/photos/a/x.jpg", False, "a/x.jpg"),
        ("C:\\photos\\a\\x.jpg", False, "a/x.jpg"),
        ("./a/x.jpg", False, "a/x.jpg"),
        ("only.png", False, "b/only.png"),
        ("only", True, "b/only.png"),
        ("only.xml", True, "b/only.png"),
        ("v1.2 final.xml", True, "v1.2 final.jpg"),
        ("e\u0301.jpg", False, "\u00e9.jpg"),
        ("x.jpg", False, "may be any of 2 images"),
        ("c/only.png", False, "no image of the pool"),
        ("nowhere.jpg", False, "no image of the pool"),
        ("export/Annotations/only.xml", True, "b/only.png"),
        ("export/a/x.png", True, "a/x.jpg"),
        ("export/a/only.xml", True, "no image of the pool"),
        ("", False, "no image of the pool"),
        ("a/", False, "no image of the pool"),
    ],
)
def test_names_are_matched_without_doubt_or_not_at_all(
    candidate: str, stem: bool, found: str
) -> None:
    """The end of a path is enough if it fits one image; anything else is said, not guessed."""
    names = ImageNames(["a/x.jpg", "b/x.jpg", "b/only.png", "\u00e9.jpg", "v1.2 final.jpg"])
    if " of " in found:
        with pytest.raises(UnusableFile, match=found):
            names.find([candidate], stem=stem)
    else:
        assert names.find([candidate], stem=stem) == found


@pytest.mark.parametrize(
    ("candidate", "stem", "found"),
    [
        ("images/abcdef12-x.jpg", False, "a/x.jpg"),
        ("abcdef12-my_photo_1.jpg", False, "my photo (1).jpg"),
        ("my_photo_1.jpg", False, "my photo (1).jpg"),
        ("labels/abcdef12-my_photo_1.txt", True, "my photo (1).jpg"),
        ("deadbeef-only.jpg", False, "deadbeef-only.jpg"),
        ("my photo 1.jpg", False, "no image of the pool"),
        ("one_two.jpg", False, "may be any of 2 images"),
        ("???.jpg", False, "no image of the pool"),
        ("y(1).jpg", False, "no image of the pool"),
    ],
)
def test_names_that_a_tool_has_changed_are_found(candidate: str, stem: bool, found: str) -> None:
    """A hash before the name and underscores for blanks; a literal fit always counts first."""
    names = ImageNames(
        ["a/x.jpg", "my photo (1).jpg", "deadbeef-only.jpg", "only.jpg", "c/one two.jpg",
         "b/one  two.jpg".replace("  ", "\u00a0"), "!!!.jpg", "y1.jpg"]
    )  # fmt: skip
    if " of " in found:
        with pytest.raises(UnusableFile, match=found):
            names.find([candidate], stem=stem)
    else:
        assert names.find([candidate], stem=stem) == found


def test_of_equal_names_the_one_that_was_asked_for_is_meant() -> None:
    """An ambiguous name is that of the image people were given, if it was one of them."""
    names = ["a/x.jpg", "b/x.jpg", "c/x.jpg"]
    assert ImageNames(names, {"b/x.jpg"}).find(["x.jpg"]) == "b/x.jpg"
    with pytest.raises(UnusableFile):
        ImageNames(names, {"a/x.jpg", "b/x.jpg"}).find(["x.jpg"])


@pytest.mark.parametrize(
    ("url", "name"),
    [
        ("/data/local-files/?d=a%20b/x.jpg", "a b/x.jpg"),
        ("https://host/bucket/a/%C3%BC.jpg", "/bucket/a/ü.jpg"),
        ("/data/upload/12/0a1b2c3d-x.jpg", "x.jpg"),
        ("s3://bucket/a/x.jpg", "/a/x.jpg"),
    ],
)
def test_addresses_name_images(url: str, name: str) -> None:
    """Local files, web addresses, uploads with their prefix."""
    assert name in names_in_url(url)


def test_names_that_a_tool_would_lose_are_told() -> None:
    """Equal base names where folders are dropped, case, and control characters."""
    names = ["a/x.jpg", "b/x.jpg", "y.jpg", "Y.jpg", "line\nbreak.jpg"]
    assert set(lost_names(names, keeps_folders=True)) == {"y.jpg", "Y.jpg", "line\nbreak.jpg"}
    assert set(lost_names(names, keeps_folders=False)) == set(names)
