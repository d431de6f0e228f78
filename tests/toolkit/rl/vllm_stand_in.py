"""A small HTTP server that speaks the part of vLLM's protocol which an RL run uses, on plain transformers and peft.

It generates for real: adapters are loaded from the folder they are announced in, pictures are decoded from the request,
and tokens are drawn from the model's softmax. What it shares with the trainer's side is the checkpoint alone.
"""

from __future__ import annotations

import base64
import io
import json
import threading
from collections.abc import Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Literal

import torch
from peft import PeftModel
from PIL import Image
from transformers import AutoModelForImageTextToText, AutoProcessor

Fault = Literal["keeps_first_adapter", "drops_pixels", "raw_logprobs", "another_prompt", "half_weights"]


class Refusal(Exception):
    """An answer with an error's status."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class StandIn:
    """The server; ``with`` starts and stops it.

    Args:
        base: the folder of the base model.
        lora_updating: adapters can be loaded (``VLLM_ALLOW_RUNTIME_LORA_UPDATING``).
        scale_out: tokens can be asked for (``--enable-scale-out``).
        fault: what it does wrong, if anything.
        dies_after: it goes away for good at the next request after so many completed ones.
    """

    def __init__(
        self,
        base: Path,
        *,
        lora_updating: bool = True,
        scale_out: bool = True,
        fault: Fault | None = None,
        dies_after: int | None = None,
    ) -> None:
        self.base, self.lora_updating, self.scale_out = base, lora_updating, scale_out
        self.fault, self.dies_after = fault, dies_after
        dtype = torch.bfloat16 if fault == "half_weights" else torch.float32
        self.model: Any = AutoModelForImageTextToText.from_pretrained(base, dtype=dtype).eval()
        self.processor: Any = AutoProcessor.from_pretrained(base)
        self.adapters: dict[str, str] = {}
        self.log: list[tuple[str, Any]] = []
        self._lock = threading.Lock()
        self._http = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self._http.daemon_threads = True
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.02,), daemon=True)

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self._http.server_address[1]}"

    def __enter__(self) -> StandIn:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._http.shutdown()
        self._http.server_close()

    def bodies(self, path: str) -> list[Any]:
        """What was posted to ``path``, empty probes left out."""
        return [body for where, body in self.log if where == path and body]

    def answer(self, path: str, body: Any) -> Any:
        """One request, one after another."""
        with self._lock:
            self.log.append((path, body))
            if path == "/v1/models":
                root = str(self.base)
                cards = [{"id": root, "root": root, "parent": None}]
                cards += [
                    {"id": name, "root": at, "parent": str(self.base)} for name, at in self.adapters.items()
                ]
                return {"object": "list", "data": cards}
            if path in ("/v1/load_lora_adapter", "/v1/unload_lora_adapter") and self.lora_updating:
                return self._load(body) if "unload" not in path else self._unload(body)
            if path == "/inference/v1/generate":
                if not self.scale_out:
                    raise Refusal(403, "Scale-out endpoints are disabled. Restart with --enable-scale-out.")
                if self.dies_after is not None and len(self.bodies(path)) > self.dies_after:
                    threading.Thread(target=self.__exit__, daemon=True).start()
                    raise ConnectionAbortedError
                return self._generate(body)
            raise Refusal(404, "Not Found")

    # ---- adapters ------------------------------------------------------------------------------------------

    def _load(self, body: dict[str, Any]) -> str:
        if "lora_name" not in body or "lora_path" not in body:
            raise Refusal(400, "lora_name, lora_path: Field required")
        name, path = body["lora_name"], body["lora_path"]
        if not (Path(path) / "adapter_config.json").is_file():
            raise Refusal(404, f"Loading lora {name} failed: No adapter found for {path}")
        if isinstance(self.model, PeftModel):
            self.model.load_adapter(path, name)
        else:
            self.model = PeftModel.from_pretrained(self.model, path, adapter_name=name).eval()
        self.adapters[name] = path
        return f"Success: LoRA adapter '{name}' added successfully."

    def _unload(self, body: dict[str, Any]) -> str:
        name = body["lora_name"]
        if self.adapters.pop(name, None) is None:
            raise Refusal(404, f"The lora adapter '{name}' cannot be found.")
        rest = [other for other in self.model.peft_config if other != name]
        if rest and self.fault != "keeps_first_adapter":
            self.model.set_adapter(rest[-1])
            self.model.delete_adapter(name)
        return f"Success: LoRA adapter '{name}' removed successfully."

    # ---- tokens --------------------------------------------------------------------------------------------

    @torch.no_grad()
    def _generate(self, body: dict[str, Any]) -> dict[str, Any]:
        if "token_ids" not in body or "sampling_params" not in body:
            raise Refusal(400, "token_ids, sampling_params: Field required")
        if body["model"] not in self.adapters:
            raise Refusal(404, f"The model `{body['model']}` does not exist.")
        kept = self.fault == "keeps_first_adapter"
        self.model.set_adapter(next(iter(self.model.peft_config)) if kept else body["model"])
        pictures = [_decoded(part["url"]) for part in body.get("content_parts", ())]
        prompt, pixels = self._read(body["token_ids"], pictures)
        if self.fault == "drops_pixels" and pixels is not None:
            pixels = torch.zeros_like(pixels)
        settings = body["sampling_params"]
        assert (settings["top_p"], settings["top_k"], settings["min_p"]) == (1.0, 0, 0.0)
        choices = [self._draw(prompt, pixels, settings, index) for index in range(settings["n"])]
        read = prompt.tolist()
        return {
            "prompt_token_ids": [7, *read] if self.fault == "another_prompt" else read,
            "choices": choices,
        }

    def _read(
        self, ids: Sequence[int], pictures: Sequence[Image.Image]
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """The prompt with every placeholder as often as its picture has features, and the pixels."""
        if not pictures:
            return torch.tensor(ids), None
        place = self.processor.tokenizer.convert_tokens_to_ids(self.processor.image_token)
        text = self.processor.image_token * len(pictures)
        both = self.processor(text=text, images=list(pictures), return_tensors="pt")
        each = int((both["input_ids"] == place).sum()) // len(pictures)
        expanded = [token for one in ids for token in ([one] * each if one == place else [one])]
        return torch.tensor(expanded), both["pixel_values"].to(self.model.dtype)

    def _draw(
        self, prompt: torch.Tensor, pixels: torch.Tensor | None, settings: dict[str, Any], index: int
    ) -> dict[str, Any]:
        generator = torch.Generator().manual_seed(settings["seed"] + index)
        ids, content, reason = prompt, [], "length"
        for _ in range(settings["max_tokens"]):
            logits = self.model(input_ids=ids[None], pixel_values=pixels).logits[0, -1].float()
            raw = torch.log_softmax(logits, -1)
            for token, bias in settings["logit_bias"].items():
                logits[int(token)] += bias
            processed = torch.log_softmax(logits / settings["temperature"], -1)
            token = int(torch.multinomial(processed.exp(), 1, generator=generator))
            said = raw if self.fault == "raw_logprobs" else processed
            content.append({"token_id": token, "logprob": float(said[token])})
            ids = torch.cat([ids, torch.tensor([token])])
            if token in settings["stop_token_ids"]:
                reason = "stop"
                break
        drawn = ids[len(prompt) :].tolist()
        return {
            "index": index,
            "token_ids": drawn,
            "finish_reason": reason,
            "logprobs": {"content": content},
        }


def _decoded(url: str) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode(url.partition(",")[2]))).convert("RGB")


def _handler(server: StandIn) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._reply(None)

        def do_POST(self) -> None:
            self._reply(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))

        def _reply(self, body: Any) -> None:
            try:
                status, answer = 200, server.answer(self.path, body)
            except Refusal as refusal:
                status, answer = refusal.status, {"error": {"message": str(refusal), "code": refusal.status}}
            except ConnectionAbortedError:
                self.close_connection = True
                return
            data = answer.encode() if isinstance(answer, str) else json.dumps(answer).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    return Handler
