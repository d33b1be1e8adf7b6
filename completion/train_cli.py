"""Train without the ``grasp-utility`` command: on machines that hold this package alone, and under torchrun.

torchrun --nproc-per-node 2 -m completion.train_cli FILE --out DIR
python -m completion.train_cli FILE --out DIR --device cuda
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence

from completion.configuration import load_config
from completion.train import train


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit status: 0 done, 2 bad input or divergence (one line on stderr), 130 after Ctrl-C."""
    parser = argparse.ArgumentParser(prog="python -m completion.train_cli", description="Train a completion network.")
    parser.add_argument("config", help="the training file (YAML)")
    parser.add_argument("--out", required=True, help="folder of the checkpoint to be")
    parser.add_argument("--pairs", action="append", help="pair file instead of those it names; may be repeated")
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda")
    parser.add_argument("--fresh", action="store_true", help="begin anew instead of resuming")
    parser.add_argument("--trust-code", action="store_true", help="import a network or loss named module:thing")
    parser.add_argument("--stop-after", type=int, help="leave after this step; the same command goes on from there")
    given = parser.parse_args(arguments)
    first = os.environ.get("RANK", "0") == "0"
    try:
        folder = train(
            load_config(given.config, **({"pairs": given.pairs} if given.pairs else {})),
            given.out,
            given.device,
            resume=not given.fresh,
            progress=sys.stderr.isatty(),
            stop_after=given.stop_after,
            trust_code=given.trust_code,
        )
    except KeyboardInterrupt:
        return 130
    except (ValueError, OSError) as error:
        if first:
            print(f"grasp-utility: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    if first and given.stop_after is None:
        print(f"checkpoint {folder}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
