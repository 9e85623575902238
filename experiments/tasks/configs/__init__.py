"""The settings of every task, apart from its work: the command line reads them without loading torch."""
