"""The place where a configuration becomes clients, backends, a clock and a train; ``run_cutover`` and ``recover_cutover``."""
