"""`python3 -m mailfleet_release chart-readme ...`: writes the files of these names anew."""

from __future__ import annotations

import argparse
from functools import partial
from typing import TYPE_CHECKING

from mailfleet_release import api_reference, chart_readme, field_tests, install_files, schemas

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

MADE: Mapping[str, tuple[Path, Callable[[], str]]] = {
    "chart-readme": (chart_readme.PAGE, chart_readme.page),
    "api.md": (api_reference.PAGE, api_reference.page),
    "fields.md": (field_tests.PAGE, field_tests.page),
    "install.yaml": (install_files.INSTALL, install_files.install_yaml),
    "namespace.yaml": (install_files.BASE / "namespace.yaml", install_files.namespace),
    "definitions.yaml": (install_files.BASE / "definitions.yaml", install_files.definitions),
    "operator.yaml": (install_files.BASE / "operator.yaml", install_files.operator),
    **{f"kubernetes-{r}": (schemas.file(r), partial(schemas.page, r)) for r in schemas.RELEASES},
}
"""Name -> the file, and what it holds."""


def main() -> None:
    """Write what the command line names."""
    parser = argparse.ArgumentParser(prog="mailfleet_release", description=__doc__)
    parser.add_argument("names", nargs="+", choices=MADE, metavar="NAME", help=", ".join(MADE))
    for name in parser.parse_args().names:
        path, make = MADE[name]
        path.write_text(make(), encoding="utf-8")


if __name__ == "__main__":
    main()
