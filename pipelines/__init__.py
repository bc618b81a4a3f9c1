"""What moves: the extraction core, Prefect flows over it, the command line, reports."""
