"""Every error that ld-deploy raises for something the user can mend, as one tree.

A message says what is wrong, what was got, and the command or change that mends it. The command line prints it
without a trace and exits with 2; a failed check (`ParityError`) exits with 1.
"""

from __future__ import annotations


class LdDeployError(Exception):
    """Root of the tree: `except LdDeployError` catches all of them."""


class ConfigError(LdDeployError):
    """A training or export configuration that cannot be used as it is."""


class DataError(LdDeployError):
    """A data set or an annotation that cannot be used."""


class CheckpointError(LdDeployError):
    """A checkpoint that is damaged, foreign, or made for another model."""


class BackendMissingError(LdDeployError):
    """A library, provider or operator that was asked for is not installed."""


class ModelCardError(LdDeployError):
    """A model file without a model card, or with one this version cannot read."""


class EngineError(LdDeployError):
    """A model file or engine that cannot be opened or run, or that was built for something else."""


class InputError(LdDeployError):
    """An image, video or array that cannot be read or has the wrong form."""


class ParityError(LdDeployError):
    """The deployed file does not agree with the PyTorch model within the tolerance."""
