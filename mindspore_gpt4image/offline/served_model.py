"""A model behind a server that speaks the OpenAI chat API: vLLM, SGLang, transformers serve, hosted ones."""

from __future__ import annotations

import base64
import email.utils
import threading
import time
from collections.abc import Sequence

import openai
import tenacity

from mindspore_gpt4image.errors import UserError
from mindspore_gpt4image.offline.answers import Answer
from mindspore_gpt4image.offline.picture import Picture

# Seconds: of waits that we choose, and of those that a server asks for.
_LONGEST_WAIT = 60.0
_LONGEST_TOLD = 600.0
_CHECK_TIMEOUT = 30.0


class ServedModel:
    """A model on a server; `workers` requests of one image are in flight at a time.

    What may pass (no connection, time-outs, 408, 409, 429, 5xx, an empty or refused answer) is tried again `retries`
    times: after the time that the server's Retry-After tells, otherwise after a random time that doubles (up to a
    minute). What is left then, and what cannot pass (other 4xx), is the image's fault and told in its answer.

    Args:
        base_url: the API's, with the version: `http://127.0.0.1:8000/v1`.
        model: the name under which the server knows it.
        key: the API's key; None for servers that ask for none.
        first_wait: seconds, the longest wait before the first retry.
        timeout: seconds an answer may take.

    Raises:
        UserError: there is no such server, or it refuses the key.
    """

    batch_size = 1

    def __init__(
        self,
        base_url: str,
        model: str,
        *,
        key: str | None = None,
        workers: int = 16,
        retries: int = 5,
        max_tokens: int = 256,
        first_wait: float = 2.0,
        timeout: float = 300.0,
    ):
        self.workers = workers
        self._url = base_url
        self._key = key
        self._model = model
        self._retries = retries
        self._max_tokens = max_tokens
        self._closed = threading.Event()
        self._lock = threading.Lock()
        self._failed_in_a_row = 0
        self._client = openai.OpenAI(base_url=base_url, api_key=key or "none", max_retries=0, timeout=timeout)
        self._back_off = tenacity.wait_random_exponential(multiplier=first_wait, max=_LONGEST_WAIT)
        self._retrying = tenacity.Retrying(
            stop=tenacity.stop_after_attempt(retries + 1) | tenacity.stop_when_event_set(self._closed),
            retry=tenacity.retry_if_exception(_may_pass) | tenacity.retry_if_result(lambda answer: answer.fault),
            wait=self._wait,
            sleep=tenacity.sleep_using_event(self._closed),
            retry_error_callback=lambda state: state.outcome.result(),
        )
        self._check_server()

    def answers(self, pictures: Sequence[Picture], prompts: Sequence[str]) -> list[Answer]:
        """An answer for each picture to the prompt at its place.

        Raises:
            UserError: the server refuses the key or knows no such model, the account is used up, or so many images in
                a row failed that it cannot be the images.
        """
        return [self._answer(picture, prompt) for picture, prompt in zip(pictures, prompts)]

    def close(self) -> None:
        """Wait for no retry any more, and cut the connections."""
        self._closed.set()
        self._client.close()

    def _answer(self, picture: Picture, prompt: str) -> Answer:
        try:
            answer = self._retrying(self._ask, picture, prompt)
        except openai.APIError as error:
            return self._failed(error)
        with self._lock:
            self._failed_in_a_row = 0
        return answer

    def _ask(self, picture: Picture, prompt: str) -> Answer:
        content = [{"type": "image_url", "image_url": {"url": _data_url(picture.encoded())}}]
        if prompt:
            content.append({"type": "text", "text": prompt})
        try:
            completion = self._client.chat.completions.create(
                model=self._model,
                messages=[{"role": "user", "content": content}],
                temperature=0,
                max_completion_tokens=self._max_tokens,
            )
        except (openai.AuthenticationError, openai.PermissionDeniedError) as error:
            raise self._refused(error) from error
        except openai.NotFoundError as error:
            raise UserError(
                f"{self._url}: has no model {self._model!r} or no chat there ({self._reason(error)}); mend --model or "
                "--base-url, which ends in /v1 as a rule"
            ) from error
        except openai.APIStatusError as error:
            if error.code == "insufficient_quota" or (_retry_after(error) or 0) > _LONGEST_TOLD:
                told = f"Retry-After: {error.response.headers.get('retry-after', 'not told')}"
                raise UserError(f"{self._url}: {self._reason(error)} ({told}); run again later to go on") from error
            raise
        try:
            return answer_of(completion, prompt)
        except (AttributeError, TypeError, LookupError, ValueError) as error:
            # The client takes whatever comes: a page of some other server, for instance.
            raise openai.APIError("answers with something else than a chat completion", None, body=None) from error

    def _failed(self, error: openai.APIError) -> Answer:
        tried = f", after {self._retries} retries" if _may_pass(error) else ""
        fault = f"{self._reason(error)}{tried}"
        with self._lock:
            self._failed_in_a_row += 1
            if self._failed_in_a_row >= max(10, 3 * self.workers):
                raise UserError(
                    f"{self._url}: {self._failed_in_a_row} images in a row failed (last: {fault}); look after the "
                    "server and run again to go on"
                )
        return Answer(fault=fault)

    def _wait(self, state: tenacity.RetryCallState) -> float:
        told = _retry_after(state.outcome.exception()) if state.outcome.failed else None
        return self._back_off(state) if told is None else told

    def _refused(self, error: openai.APIStatusError) -> UserError:
        return UserError(f"{self._url}: refuses the key ({self._reason(error)}); set OPENAI_API_KEY")

    def _reason(self, error: openai.APIError) -> str:
        """One line of what went wrong; without the key, which some servers repeat."""
        if isinstance(error, openai.APIStatusError):
            body = error.body if isinstance(error.body, dict) else {}
            reason = f"HTTP {error.status_code}: {body.get('message') or body.get('detail') or error.message}"
        else:
            reason = f"{error.message} ({error.__cause__})" if error.__cause__ else error.message
        return " ".join(reason.replace(self._key or "\0", "***").split())[:300]

    def _check_server(self) -> None:
        """At once rather than after an hour of retries; a server without a list of models is as good."""
        try:
            self._client.with_options(timeout=_CHECK_TIMEOUT).models.list()
        except (openai.AuthenticationError, openai.PermissionDeniedError) as error:
            raise self._refused(error) from error
        except openai.APIConnectionError as error:
            raise UserError(f"{self._url}: no server answers there ({self._reason(error)}); mend --base-url") from error
        except openai.APIError:
            return


def _may_pass(error: BaseException) -> bool:
    if isinstance(error, openai.APIStatusError):
        return error.status_code in (408, 409, 429) or error.status_code >= 500
    return isinstance(error, openai.APIError)


def _retry_after(error: BaseException | None) -> float | None:
    """Seconds that the server asks to wait, which it tells as a number or a date."""
    if not isinstance(error, openai.APIStatusError):
        return None
    told = error.response.headers.get("retry-after", "")
    try:
        return max(0.0, float(told))
    except ValueError:
        date = email.utils.parsedate_tz(told)
    return None if date is None else max(0.0, email.utils.mktime_tz(date) - time.time())


def answer_of(completion, prompt: str) -> Answer:
    """What a server's answer says; AttributeError, TypeError, LookupError or ValueError where it has another form."""
    usage = completion.usage
    counts = {
        "prompt_tokens": int(usage.prompt_tokens or 0) if usage else 0,
        "tokens": int(usage.completion_tokens or 0) if usage else 0,
    }
    if not completion.choices:
        return Answer(fault="empty answer", **counts)
    choice = completion.choices[0]
    if choice.message.refusal or choice.finish_reason == "content_filter":
        return Answer(fault=f"refused: {choice.message.refusal or 'content filter'}", **counts)
    return Answer.of(choice.message.content or "", prompt, cut=choice.finish_reason == "length", **counts)


def _data_url(encoded: bytes) -> str:
    kind = "jpeg" if encoded.startswith(b"\xff\xd8") else "png"
    return f"data:image/{kind};base64,{base64.b64encode(encoded).decode()}"
