"""Extractors by name with their settings, weights and sources settled."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from vlpipe.extractors.device import parse_device
from vlpipe.extractors.errors import WeightsMissing
from vlpipe.extractors.extractor import Extractor
from vlpipe.extractors.extractor_spec import (
    ExtractorConfig,
    ExtractorSpec,
    choose_weights,
    parse_config,
)
from vlpipe.extractors.precision import parse_precision
from vlpipe.extractors.registry import find_extractor
from vlpipe.extractors.weights.folder import WeightsFolder
from vlpipe.extractors.weights.source import UNTRAINED, WeightsSource, parse_source
from vlpipe.stores.errors import UsageError

ALL_EXTRACTORS = "*"
"""Stands for every extractor among the keys of `weights`."""

Weights = str | Path | Mapping[str, str | Path] | None


def configure_extractors(
    names: Sequence[str],
    *,
    weights: Mapping[str, str | Path],
    settings: Mapping[str, Mapping[str, Any]],
    device: str = "cpu",
    precision: str = "fp32",
    store_dtype: str = "float16",
    is_compiled: bool = False,
) -> list[ExtractorSpec]:
    """The extractors of those names, which share what they read, without their networks.

    weights: extractor, role of a checkpoint or `*` to a file, a published name, or `untrained`.
    settings: extractor to fields of its Config. Both may name sources of the extractors.
    Raises UsageError for an unknown name or setting, WeightsMissing without a checkpoint.
    """
    return _configure(
        names, weights, {}, settings, device, precision, store_dtype, is_compiled=is_compiled
    )


def _configure(
    names: Sequence[str],
    weights: Mapping[str, str | Path],
    single_files: Mapping[str, str | Path],
    settings: Mapping[str, Mapping[str, Any]],
    device: str,
    precision: str,
    store_dtype: str,
    *,
    is_compiled: bool,
) -> list[ExtractorSpec]:
    """See `configure_extractors`. single_files: extractor to a file that may hold several roles."""
    parse_device(device)
    common = (parse_precision(precision), device, store_dtype)
    met: dict[str, tuple[str, ...]] = {}
    missing: dict[str, WeightsMissing] = {}

    def configure(
        name: str, demanded: Mapping[str, Any], readers: tuple[str, ...]
    ) -> ExtractorSpec:
        if name in readers:
            raise UsageError(f"{name} would read its own rows: {' <- '.join((*readers, name))}")
        extractor = find_extractor(name)
        roles = met[extractor.name] = tuple(extractor.published_checkpoints())
        chosen = single_files.get(name) or _weights_of(extractor.name, roles, weights)
        wanted = {**settings.get(name, {}), **demanded}
        try:
            config, source = _settle(extractor, wanted, chosen)
        except WeightsMissing as error:
            # On without it: what else is in use says whether a misspelt key is why.
            missing[extractor.name] = error
            config, source = _settle(extractor, wanted, UNTRAINED)
        return ExtractorSpec(
            extractor,
            config,
            source,
            *common,
            is_compiled=is_compiled and extractor.is_compilable,
            sources={
                role: configure(read.extractor, read.settings, (*readers, name))
                for role, read in extractor.sources(config).items()
            },
        )

    specs = [configure(name, {}, ()) for name in dict.fromkeys(names)]
    _check_keys(weights, settings, met)
    if missing:
        raise _all_missing(missing)
    _check_features(specs)
    return specs


def _all_missing(errors: Mapping[str, WeightsMissing]) -> WeightsMissing:
    """One error: the first as it is, the names of the others with it."""
    first, *others = errors.values()
    if not others:
        return first
    message = f"{first.message}. Those of {', '.join(list(errors)[1:])} are missing too"
    return WeightsMissing(message, hint=first.hint)


def _settle(
    extractor: type[Extractor], settings: Mapping[str, Any], weights: Weights
) -> tuple[ExtractorConfig, WeightsSource]:
    """Its configuration and the checkpoints that this one reads; WeightsMissing without them."""
    published = extractor.published_checkpoints()
    source, defaults = parse_source(weights, published, WeightsFolder())
    config = parse_config(extractor, settings, defaults)
    return config, choose_weights(extractor, config, source) if published else WeightsSource()


def _check_features(specs: Sequence[ExtractorSpec]) -> None:
    """UsageError if two extractors make one feature: a pass cannot say which rows are right."""
    makers: dict[str, str] = {}
    for spec in specs:
        for output in spec.outputs:
            other = makers.setdefault(output.feature, spec.name)
            if other != spec.name:
                raise UsageError(
                    f"{other} and {spec.name} both make the feature {output.feature}",
                    hint="extract with one of them; a later run with the other makes a newer "
                    "generation of it",
                )


def _check_keys(
    weights: Mapping[str, object],
    settings: Mapping[str, object],
    met: Mapping[str, Sequence[str]],
) -> None:
    """UsageError for keys that name nothing in use. met: extractors in use, with their roles."""
    unused = set(settings) - set(met)
    if unused:
        raise UsageError(
            f"settings for {', '.join(sorted(unused))}, which is not among the features "
            f"{', '.join(met)}"
        )
    known = {*met, *(role for roles in met.values() for role in roles)}
    for key in weights:
        if key not in known and key != ALL_EXTRACTORS:
            raise UsageError(
                f"weights for {key!r}, which no selected extractor uses",
                hint=f"known here: {', '.join(sorted(known))}",
            )


def configure_extractor(
    name: str,
    *,
    weights: Weights = None,
    device: str = "cpu",
    precision: str = "fp32",
    store_dtype: str = "float16",
    is_compiled: bool = False,
    source_settings: Mapping[str, Mapping[str, Any]] | None = None,
    **settings: Any,  # noqa: ANN401 - the fields of the extractor's Config, validated by it
) -> ExtractorSpec:
    """An extractor with its configuration and weights settled, its network not yet built.

    weights: a file, the name of a published checkpoint, a mapping from role to either, or
        `untrained`, which holds for its sources too. None takes what `vlpipe weights add` has
        added. source_settings: of the extractors that it reads, by their names.
    Raises UsageError for an unknown name or setting, WeightsMissing without a checkpoint.
    """
    by_key: Mapping[str, str | Path] = weights if isinstance(weights, Mapping) else {}
    single_files: dict[str, str | Path] = {}
    if isinstance(weights, str | Path):
        if _is_untrained(weights):
            by_key = {ALL_EXTRACTORS: weights}
        else:
            single_files[name] = weights
    return _configure(
        [name],
        by_key,
        single_files,
        {**(source_settings or {}), name: settings},
        device,
        precision,
        store_dtype,
        is_compiled=is_compiled,
    )[0]


def create_extractor(
    name: str,
    *,
    weights: Weights = None,
    device: str = "cpu",
    precision: str = "fp32",
    is_compiled: bool = False,
    source_settings: Mapping[str, Mapping[str, Any]] | None = None,
    **settings: Any,  # noqa: ANN401 - as in configure_extractor
) -> Extractor:
    """An extractor ready to use: `extract(path)` gives features, `network(x)` a dict of tensors.

    The arguments are those of `configure_extractor`.
    """
    return configure_extractor(
        name,
        weights=weights,
        device=device,
        precision=precision,
        is_compiled=is_compiled,
        source_settings=source_settings,
        **settings,
    ).build()


def _weights_of(name: str, roles: Sequence[str], weights: Mapping[str, str | Path]) -> Weights:
    """What `weights` says of one extractor with those roles."""
    whole = weights.get(name)
    if whole is not None and _is_untrained(whole):
        return whole
    own = {role: weights[role] for role in roles if role in weights}
    if own:
        return own if whole is None or name in own else {roles[0]: whole} | own
    return whole if whole is not None else weights.get(ALL_EXTRACTORS)


def _is_untrained(weights: str | Path) -> bool:
    return isinstance(weights, str) and weights.partition(":")[0] == UNTRAINED
