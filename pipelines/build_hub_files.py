# Copyright 2026 The diffusers-vilearn Authors
# SPDX-License-Identifier: Apache-2.0
"""Write `pipelines/hub/`: the code that goes beside weights on the Hub, for those without this package.

    python pipelines/build_hub_files.py

The files are the package's own source; run this after changing it. `diffusers-vilearn publish --self-contained` puts
them beside the weights.
"""

import argparse
import shutil
from pathlib import Path

from diffusers_vilearn.custom_code import custom_code_files

HUB_FILES = Path(__file__).parent / "hub"


def main():
    files = custom_code_files()
    shutil.rmtree(HUB_FILES, ignore_errors=True)
    for name, source in files.items():
        path = HUB_FILES / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(source, encoding="utf-8")
    print(f"{HUB_FILES}: {', '.join(sorted(files))}")


if __name__ == "__main__":
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    main()
