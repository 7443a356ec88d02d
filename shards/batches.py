"""From the settings of a recipe and a view to the loader that gives a run's batches."""

from shards.config import did_you_mean
from shards.dataset import TokenView
from shards.errors import RecipeError
from shards.loader import Batches, Loader
from shards.mixture import MIXTURE_VERSION
from shards.mixture_config import MixtureConfig, Reading
from shards.mixture_loader import MixtureLoader
from shards.order import ORDER_VERSION, WINDOW_VERSION
from shards.packing import PACKING_VERSION
from shards.tokens import token_dtype
from shards.window import NO_WINDOW, Window, plan_window

_MIB = 1 << 20


def open_batches(
    view: TokenView,
    reading: Reading,
    seed: int,
    *,
    samples: int = 0,
    rank: int = 0,
    world_size: int = 1,
) -> Batches:
    """Return the loader of a run, at its first batch.

    Args:
        view: the documents that the run may read.
        reading: how; a `TrainConfig`, or what a run's record says of one.
        seed: of the order.
        samples: how many the run reads.
        rank, world_size: this process among those that share each batch.

    Raises:
        RecipeError: sources that the data does not have, a schedule that cannot be or that ends
            before the run, or a cache that is too small for this order.
        TrainingError: a selection or a source has no token to predict.
    """
    shape = {"sequence_length": reading.sequence_length, "batch_size": reading.batch_size}
    place = {"seed": seed, "rank": rank, "world_size": world_size}
    _check_cache(view, reading)
    if reading.mixture is None:
        window = _window(view, reading, 1)
        return Loader(view, **shape, **place, window=window, packing=reading.packing)
    views = open_sources(view, reading.mixture)
    loader = MixtureLoader(
        views,
        reading.mixture.stages,
        **shape,
        **place,
        max_epochs=reading.mixture.max_epochs,
        window=_window(view, reading, len(views)),
        packing=reading.packing,
    )
    loader.check_enough(samples)
    return loader


def open_sources(view: TokenView, mixture: MixtureConfig) -> dict[str, TokenView]:
    """Return the documents of each source of a mixture.

    Raises:
        RecipeError: a selection cannot be evaluated, or the dataset has no such source.
    """
    if mixture.sources:
        return {name: view.narrow(select) for name, select in mixture.sources.items()}
    known = view.dataset.sources
    wanted = {name for stage in mixture.stages for name in stage.weights}
    for name in sorted(wanted - set(known)):
        raise RecipeError(
            f"mixture: the dataset {view.dataset.location} has no source {name!r}"
            f"{did_you_mean(name, tuple(known), 'sources')}; or say in train.mixture.sources which"
            " documents it has"
        )
    return {name: view.narrow(f"source_id == {known.index(name)}") for name in sorted(wanted)}


def order_definitions(reading: Reading) -> dict[str, str]:
    """Return names and versions of all rules that take part in the order of a run's samples."""
    used = {"order": ORDER_VERSION}
    if reading.packing != "none":
        used["packing"] = PACKING_VERSION
    if reading.window_mb:
        used["window"] = WINDOW_VERSION
    if reading.mixture is not None:
        used["mixture"] = MIXTURE_VERSION
    return used


def _window(view: TokenView, reading: Reading, sources: int) -> Window:
    """Return the window of each source: all of them together have `window_mb`."""
    if not reading.window_mb:
        return NO_WINDOW
    size = reading.window_mb * _MIB // sources
    item = token_dtype(view.dataset.vocab_size).itemsize
    try:
        return plan_window(2 * size, reading.sequence_length * item)
    except RecipeError as error:
        shared = f", shared by {sources} sources" if sources > 1 else ""
        raise RecipeError(f"train.window_mb = {reading.window_mb}{shared}: {error}") from None


def _check_cache(view: TokenView, reading: Reading) -> None:
    """Refuse an order that would fetch a block for each sample, again and again.

    Raises:
        RecipeError: the data does not fit into the cache, and the order does not know of it.
    """
    room = view.dataset.cache.token_bytes if view.dataset.cache else None
    data = view.tokens * token_dtype(view.dataset.vocab_size).itemsize
    if room is None or data <= room:
        return
    sizes = (
        f"{view.dataset.location}: the run reads {-(-data // _MIB):,} MiB of tokens, and the cache"
        f" has room for {room // _MIB:,}"
    )
    if reading.packing != "none":
        raise RecipeError(
            f"{sizes}: packed rows hold documents from everywhere, so that would fetch a block for"
            " each; give a cache that holds all, or train.packing = 'none' with train.window_mb"
        )
    if not 0 < reading.window_mb * _MIB <= room // 2:
        raise RecipeError(
            f"{sizes}: set train.window_mb (now {reading.window_mb}) to between 1 and half of that,"
            f" {room // 2 // _MIB:,}, so that samples are mixed in windows that fit; or give a"
            " larger cache"
        )
