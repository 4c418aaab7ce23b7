"""Pick in several processes: on this machine, on its GPUs, or on a cluster, with Dask."""
