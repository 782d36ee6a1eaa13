"""Reads the folder of a run and writes one self-contained page about it.

  python -m diffv2iqa_jax.report RUN [-o report.html]
  python -m diffv2iqa_jax.report RUN --figure out.png  (or .svg, .pdf, .jpg, .webp)
  python -m diffv2iqa_jax.report --ablation RUN RUN...
  python -m diffv2iqa_jax.report --restored RUN RUN...
  python -m diffv2iqa_jax.report METHOD METHOD... [-o FOLDER]

RUN is the folder of one run, or a folder that holds the folders of its stages. METHOD is a
folder with all runs of one method below it, on any sets and splits. Several METHODs, or one
with --tables, become tables.md, tables.csv and tables.html in FOLDER. Needs neither JAX nor
TensorFlow. Exit code 2: there is nothing to report on in the folder; nothing is written.
"""

import argparse
import sys

from diffv2iqa_jax.errors import one_line
from diffv2iqa_jax.reporting import ablation, restoration
from diffv2iqa_jax.reporting.run import quality_run, read
from diffv2iqa_jax.reporting.write import headline_figure, name_and_folder, write, write_tables


def main(argv: list[str] | None = None) -> int:
    """Returns the exit status: 0, or 2 with one line on stderr."""
    parser = argparse.ArgumentParser(
        prog="python -m diffv2iqa_jax.report",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("run", metavar="RUN", nargs="+", help="folder of a run, or of its stages")
    parser.add_argument("-o", "--output", help="the page to write (default: RUN/report.html)")
    parser.add_argument("--figure", metavar="FILE", help="write one picture instead of the page")
    parser.add_argument("--ablation", action="store_true", help="table; the first RUN is the base")
    parser.add_argument("--restored", action="store_true", help="table of runs of stage 1")
    parser.add_argument("--tables", action="store_true", help="tables, of one METHOD too")
    args = parser.parse_args(argv)
    try:
        if args.ablation:
            print(ablation.changes_table([quality_run(run) for run in args.run]))
        elif args.restored:
            runs = [read(run)[0]._replace(name=run) for run in args.run]
            print(restoration.gains_tables(runs))
        elif args.tables or len(args.run) > 1:
            out = args.output or str(name_and_folder(args.run[0])[1] / "tables")
            print("\n".join(write_tables(args.run, out)))
        elif args.figure:
            print(headline_figure(args.run[0], args.figure))
        else:
            print(write(args.run[0], args.output))
    except (ValueError, OSError) as error:
        print(f"report: {one_line(error)}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
