"""`python -m pipelines` is `assay`."""

from pipelines.cli import main

if __name__ == "__main__":
    main()
