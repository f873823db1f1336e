"""The host of timm's pretrained weights, the Hugging Face hub: is it within reach, and if not, no time is lost."""

import queue
import threading
from contextlib import contextmanager

PATIENCE = 3  # seconds that the host has for an answer, whatever it is; with none there is no network


def unreachable():
    """Why the host of timm's weights cannot be reached, an exception; None where it answers whatever it answers."""
    from huggingface_hub import constants, utils

    answers = queue.SimpleQueue()

    def ask():
        try:
            utils.get_session().head(constants.ENDPOINT, timeout=PATIENCE)
            answers.put(None)
        except Exception as error:  # of whichever HTTP library it takes
            answers.put(error)

    threading.Thread(target=ask, daemon=True).start()  # looking up a name, or many addresses, has no time limit
    try:
        return answers.get(timeout=PATIENCE)
    except queue.Empty:
        return TimeoutError(f'no answer within {PATIENCE} seconds')


@contextmanager
def no_retries_without_network():
    """Without a network, weights come from the cache or are a ConnectionError at once.

    The library that timm downloads with would try again for most of a minute; in its offline mode it does not.
    """
    try:
        from huggingface_hub import constants
    except ImportError:  # timm then downloads by itself
        yield
        return
    reason = None if constants.HF_HUB_OFFLINE else unreachable()
    if reason is None:
        yield
        return
    constants.HF_HUB_OFFLINE = True
    try:
        yield
    except OSError:
        raise ConnectionError(f'{constants.ENDPOINT} is out of reach: {reason}') from None
    finally:
        constants.HF_HUB_OFFLINE = False
