"""The subcommands that `pipelines` provides, one module each."""
