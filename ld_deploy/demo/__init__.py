"""The whole job on a data set that it renders itself: `ld-deploy demo`."""
