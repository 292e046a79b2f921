"""Anthropic, OpenAI and Google in one, behind TLS on loopback: answers of their shapes; tokens depend on the request.

`named` holds what each answer said of its usage: provider, model, input and output tokens, tokens read from the cache.
"""

import base64
import gzip
import json
import ssl
import zlib

from aiohttp import web


class Provider:
    def __init__(self):
        self.named = []

    async def start(self, certificate_paths):
        app = web.Application()
        app.router.add_post("/v1/messages", self.anthropic)
        app.router.add_post("/v1/chat/completions", self.chat)
        app.router.add_post("/v1/responses", self.response)
        app.router.add_post("/v1/embeddings", self.embedding)
        # Older and newer versions of the SDK.
        app.router.add_post("/v1beta/models/{model}", self.google)
        app.router.add_post("/v1/models/{model}", self.google)
        self.runner = web.AppRunner(app, access_log=None, shutdown_timeout=1)
        await self.runner.setup()
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate_paths[1], certificate_paths[2])
        await web.TCPSite(self.runner, "127.0.0.1", 0, ssl_context=context).start()
        self.port = self.runner.addresses[0][1]

    async def stop(self):
        await self.runner.cleanup()

    async def asked(self, request):
        """The request, and two numbers that no other request has."""
        if "sk-of-the-tool" not in str(request.headers) + request.path_qs:
            raise web.HTTPUnauthorized
        body = await request.read()
        seed = zlib.crc32(request.path.encode() + body)
        return json.loads(body), seed % 9973, seed // 9973 % 9973

    async def plain(self, request, answer):
        """Compressed, as providers do where they may."""
        body, headers = json.dumps(answer).encode(), {"request-id": "req_1", "Content-Type": "application/json"}
        if "gzip" in request.headers.get("Accept-Encoding", ""):
            body, headers = gzip.compress(body, mtime=0), {**headers, "Content-Encoding": "gzip"}
        return web.Response(body=body, headers=headers)

    async def events(self, request, events):
        """`events` are texts, each sent as a piece of its own."""
        answer = web.StreamResponse(headers={"Content-Type": "text/event-stream", "request-id": "req_1"})
        await answer.prepare(request)
        for event in events:
            await answer.write(event.encode())
        await answer.write_eof()
        return answer

    async def anthropic(self, request):
        asked, read, written = await self.asked(request)
        if asked["model"] == "overloaded":
            error = {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}
            return web.json_response(error, status=529, headers={"request-id": "req_1"})
        usage = {"input_tokens": read, "cache_creation_input_tokens": 1, "cache_read_input_tokens": 2, "output_tokens": written}
        self.named.append(["anthropic", asked["model"], read, written, 2])
        message = {"id": "msg_1", "type": "message", "role": "assistant", "model": asked["model"], "stop_sequence": None}
        text = {"type": "text", "text": "hello 🌍"}
        if not asked.get("stream"):
            return await self.plain(request, {**message, "content": [text], "stop_reason": "end_turn", "usage": usage})
        start = {**message, "content": [], "stop_reason": None, "usage": {**usage, "output_tokens": 1}}
        delta = {"type": "text_delta", "text": text["text"]}
        end = {"stop_reason": "end_turn", "stop_sequence": None}
        events = [
            {"type": "message_start", "message": start},
            {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
            {"type": "ping"},
            {"type": "content_block_delta", "index": 0, "delta": delta},
            {"type": "content_block_stop", "index": 0},
            {"type": "message_delta", "delta": end, "usage": {"output_tokens": written}},
            {"type": "message_stop"},
        ]
        return await self.events(request, [f"event: {event['type']}\ndata: {json.dumps(event)}\n\n" for event in events])

    async def chat(self, request):
        asked, read, written = await self.asked(request)
        details = {"cached_tokens": 3}
        usage = {"prompt_tokens": read, "completion_tokens": written, "total_tokens": read + written}
        usage["prompt_tokens_details"] = details
        self.named.append(["openai", asked["model"], read, written, 3])
        frame = {"id": "chatcmpl-1", "created": 1, "model": asked["model"]}
        if not asked.get("stream"):
            choice = {"index": 0, "message": {"role": "assistant", "content": "hello"}, "finish_reason": "stop"}
            return await self.plain(request, {**frame, "object": "chat.completion", "choices": [choice], "usage": usage})
        frame["object"] = "chat.completion.chunk"
        choice = {"index": 0, "delta": {"role": "assistant", "content": "hello"}, "finish_reason": "stop"}
        chunks = [{**frame, "choices": [choice], "usage": None}, {**frame, "choices": [], "usage": usage}]
        return await self.events(request, [*(f"data: {json.dumps(chunk)}\n\n" for chunk in chunks), "data: [DONE]\n\n"])

    async def response(self, request):
        asked, read, written = await self.asked(request)
        usage = {"input_tokens": read, "output_tokens": written, "total_tokens": read + written}
        usage |= {"input_tokens_details": {"cached_tokens": 4}, "output_tokens_details": {"reasoning_tokens": 0}}
        self.named.append(["openai", asked["model"], read, written, 4])
        content = [{"type": "output_text", "text": "hello", "annotations": []}]
        output = [{"id": "msg_1", "type": "message", "role": "assistant", "status": "completed", "content": content}]
        frame = {"id": "resp_1", "object": "response", "created_at": 1, "model": asked["model"], "tools": [], "tool_choice": "auto"}
        frame |= {"parallel_tool_calls": True, "error": None, "incomplete_details": None, "instructions": None, "metadata": {}}
        whole = {**frame, "status": "completed", "output": output, "usage": usage}
        if not asked.get("stream"):
            return await self.plain(request, whole)
        begun = {**frame, "status": "in_progress", "output": [], "usage": None}
        events = [
            {"type": "response.created", "sequence_number": 0, "response": begun},
            {"type": "response.output_item.added", "sequence_number": 1, "output_index": 0, "item": {**output[0], "content": []}},
            {"type": "response.completed", "sequence_number": 2, "response": whole},
        ]
        return await self.events(request, [f"event: {event['type']}\ndata: {json.dumps(event)}\n\n" for event in events])

    async def embedding(self, request):
        asked, read, _ = await self.asked(request)
        self.named.append(["openai", asked["model"], read, 0, None])
        numbers = [0.5, -0.25]
        if asked.get("encoding_format") == "base64":
            numbers = base64.b64encode(b"\x00\x00\x00\x3f\x00\x00\x80\xbe").decode()
        data = [{"object": "embedding", "index": 0, "embedding": numbers}]
        usage = {"prompt_tokens": read, "total_tokens": read}
        return await self.plain(request, {"object": "list", "data": data, "model": asked["model"], "usage": usage})

    async def google(self, request):
        _, read, written = await self.asked(request)
        model, _, method = request.match_info["model"].partition(":")
        usage = {"promptTokenCount": read, "candidatesTokenCount": written, "thoughtsTokenCount": 5, "cachedContentTokenCount": 6}
        self.named.append(["google", model, read, written + 5, 6])
        candidate = {"content": {"role": "model", "parts": [{"text": "hello"}]}, "finishReason": "STOP", "index": 0}
        whole = {"candidates": [candidate], "usageMetadata": usage, "modelVersion": model, "responseId": "r"}
        if method == "generateContent":
            return await self.plain(request, whole)
        begun = {**whole, "usageMetadata": {"promptTokenCount": read}}
        return await self.events(request, [f"data: {json.dumps(chunk)}\r\n\r\n" for chunk in (begun, whole)])
