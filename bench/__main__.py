"""`python -m cliprl.bench`: the same as `cliprl-bench`."""

from cliprl.bench.cli import main

if __name__ == "__main__":
    main()
