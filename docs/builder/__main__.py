"""Build the documentation site in build/site: tutorials, reference, pages, links.

python -m docs.builder                    everything
python -m docs.builder --keep-tutorials   without running the tutorials again
"""

import argparse
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from docs.builder import config_reference, links, python_reference, tutorials

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
SITE = ROOT / "build" / "site"
# Starting a kernel and the imports use one core.
_TUTORIALS_AT_A_TIME = 2


def main() -> int:
    """Build the site; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--keep-tutorials", action="store_true", help="use the tutorial pages of the last build"
    )
    keep_tutorials: bool = parser.parse_args().keep_tutorials
    if not keep_tutorials:
        with ThreadPoolExecutor(_TUTORIALS_AT_A_TIME) as pool:
            for page in pool.map(tutorials.write_page, (DOCS / "tutorials").glob("*.py")):
                print(f"wrote {page.relative_to(ROOT)}", flush=True)
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
