// What the AI SDK's own chat client makes of streams: `node chat_client.mjs <major>`.
// Standard input: one JSON object a line, `{"body": <base64>}` or `{"url", "headers", "request"}`. Standard output: one verdict a line.

import { createInterface } from 'node:readline';

const sdk = await import(`ai${process.argv[2]}`);

class Chat extends sdk.AbstractChat {
  constructor(transport) {
    const state = {
      status: 'ready',
      error: undefined,
      messages: [],
      pushMessage: (message) => state.messages.push(message),
      popMessage: () => state.messages.pop(),
      replaceMessage: (index, message) => (state.messages[index] = message),
      snapshot: structuredClone,
    };
    super({ state, transport });
  }
}

// The stage at which the client refused; null where it did not: an error that the service reports is read like any chunk.
function stageOf(error, seen) {
  if (error === undefined || (seen.last?.type === 'error' && seen.last.errorText === error.message)) return null;
  if (!seen.ok) return 'head';
  if (seen.broke) return 'transport';
  return { AI_JSONParseError: 'json', AI_TypeValidationError: 'schema' }[error.name] ?? 'order';
}

async function read(job) {
  const seen = { ok: false, broke: false, last: undefined, kinds: [] };
  const get = job.url ? fetch : async () => new Response(Buffer.from(job.body, 'base64'));
  const watched = async (...request) => {
    const response = await get(...request);
    seen.ok = response.ok;
    const reader = response.body?.getReader();
    const body = reader && new ReadableStream({
      async pull(controller) {
        const { done, value } = await reader.read().catch((error) => {
          seen.broke = true;
          throw error;
        });
        if (done) controller.close();
        else controller.enqueue(value);
      },
    });
    return new Response(body, response);
  };
  class Transport extends sdk.DefaultChatTransport {
    processResponseStream(stream) {
      const tap = new TransformStream({
        transform(chunk, controller) {
          seen.last = chunk;
          seen.kinds.push(chunk.type);
          controller.enqueue(chunk);
        },
      });
      return super.processResponseStream(stream).pipeThrough(tap);
    }
  }
  const prepare = job.request && (() => ({ body: job.request }));
  const options = { api: job.url ?? 'http://recording/', headers: job.headers, fetch: watched };
  const chat = new Chat(new Transport({ ...options, prepareSendMessagesRequest: prepare }));
  await chat.sendMessage({ text: 'Hello' });
  const parts = chat.messages.slice(1).flatMap((message) => message.parts);
  const stage = stageOf(chat.error, seen);
  return {
    stage,
    error: chat.error?.message.slice(0, 300) ?? null,
    kinds: seen.kinds,
    text: parts.filter((part) => part.type === 'text').map((part) => part.text).join(''),
  };
}

const readings = [];
for await (const line of createInterface({ input: process.stdin })) {
  readings.push(read(JSON.parse(line)));
}
for (const reading of readings) {
  console.log(JSON.stringify(await reading));
}
