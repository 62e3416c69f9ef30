"""One run: put together from its configuration, recorded in its folder, shown by a tracker."""
