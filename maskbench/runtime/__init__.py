"""What scripts need of the system: the command line, signals, processes, workers, CUDA graphs, a screen-less plot."""
