"""Write the pretraining data of the tiny VLM: plain captions and key-word questions on training scenes.

python data/make_pretraining_data.py --out out/pretraining --rows 20000 --seed 0     (about 15 s)
"""

from __future__ import annotations

import argparse
from pathlib import Path

from toolkit.data.scenes.pretraining import write_pretraining


def main() -> int:
    """Parse the command line and write the files."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="folder to write")
    parser.add_argument("--rows", type=int, default=20_000, help="number of pictures, eight texts each")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    write_pretraining(arguments.out, seed=arguments.seed, rows=arguments.rows)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
