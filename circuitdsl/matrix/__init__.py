"""Many specs on many models, tasks and seeds: planned as cells, verified one by one, kept in one directory."""
