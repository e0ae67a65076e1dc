"""Files of the project that are made from others, so that a release is whole: `python3 -m mailfleet_release NAME`."""
