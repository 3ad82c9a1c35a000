"""Areas: a feeder cut into areas that agree at their borders.

partition     a case cut into areas, each an ordinary case
plan          what a coordinator knows of them
agent         one area and its solver
algorithms    what is exchanged, one file each
driver        the loop
executors     where areas are solved, one file each
transport     how messages get across
solve, run    everything together, and what came of it
"""
