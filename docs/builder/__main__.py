"""Build the documentation site in build/site: tutorials, reference, pages, links.

python -m docs.builder                    everything
python -m docs.builder --keep-tutorials   without running the tutorials again
"""

import argparse
import subprocess
import sys
from pathlib import Path

from docs.builder import config_reference, links, python_reference, tutorials

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
SITE = ROOT / "build" / "site"


def main() -> int:
    """Build the site; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--keep-tutorials", action="store_true", help="use the tutorial pages of the last build"
    )
    keep_tutorials: bool = parser.parse_args().keep_tutorials
    if not keep_tutorials:
        for script in sorted((DOCS / "tutorials").glob("*.py")):
            print(f"running {script.relative_to(ROOT)}", flush=True)
            tutorials.write_page(script)
    config_reference.write_pages(ROOT / "configs", DOCS / "reference" / "config")
    python_reference.write_page(DOCS / "reference" / "python.md")
    command = [sys.executable, "-m", "zensical", "build", "--strict", "--clean"]
    if subprocess.run(command, cwd=ROOT, check=False).returncode:  # noqa: S603 - no outside text
        return 1
    faults = links.faults_of(SITE)
    print("\n".join([*faults, f"{SITE / 'index.html'}: {len(faults)} broken links"]))
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
