"""Quick reachability check of the Hugging Face hub, which hosts timm's pretrained weights."""

import queue
import threading
from contextlib import contextmanager

TIMEOUT = 3  # seconds to wait for any answer of the host


def unreachable():
    """The exception that prevents reaching the hub; None if it answers, whatever the answer."""
    from huggingface_hub import constants, utils

    answers = queue.SimpleQueue()

    def ask():
        try:
            utils.get_session().head(constants.ENDPOINT, timeout=TIMEOUT)
            answers.put(None)
        except Exception as error:  # depends on the HTTP library in use
            answers.put(error)

    threading.Thread(target=ask, daemon=True).start()  # DNS look-ups have no time limit
    try:
        return answers.get(timeout=TIMEOUT)
    except queue.Empty:
        return TimeoutError(f'no answer within {TIMEOUT} seconds')


@contextmanager
def no_retries_without_network():
    """Without network access, take weights from the cache or raise ConnectionError at once.

    timm's download library would retry for most of a minute; its offline mode does not.
    """
    try:
        from huggingface_hub import constants
    except ImportError:  # timm downloads without it
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
