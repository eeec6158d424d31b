"""Print the table of `make faults` from what its tests noted: `python tests/faults/table.py FILE`."""

import json
import sys
from pathlib import Path


def main() -> None:
    print("| fault | points | survived | resumed equal | published wrong |\n|---|---|---|---|---|")
    for line in Path(sys.argv[1]).read_text().splitlines():
        noted = json.loads(line)
        found = noted["found"]
        survived, equal = (sum(bool(one[key]) for one in found) / len(found) for key in ("survived", "equal"))
        wrong = sum(bool(one["wrong"]) for one in found)
        print(f"| {noted['title']} | {noted['points']} | {survived:.1%} | {equal:.1%} | {wrong} |")


if __name__ == "__main__":
    main()
