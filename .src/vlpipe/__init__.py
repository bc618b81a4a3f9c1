"""vlpipe: collections of video to features at rest, and features to answers.

Four rooms hold all code: `vlpipe.stores` (what is at rest), `vlpipe.extractors` (media to
features), `vlpipe.models` (features to answers) and `vlpipe.pipelines` (what moves). Importing
this package loads none of them.
"""

__version__ = "0.1.0"

__all__ = ["__version__"]
