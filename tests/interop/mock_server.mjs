// Streams of the AI SDK itself: `POST /<major>/<scenario>` is answered by that major's own server code, from its mock model.
// It listens on a free port of loopback, prints that port, and ends with its standard input.

import { createServer } from 'node:http';
import { Readable } from 'node:stream';
import { z } from 'zod';

const SDKS = {
  5: { ...(await import('ai5')), Model: (await import('ai5/test')).MockLanguageModelV2 },
  6: { ...(await import('ai6')), Model: (await import('ai6/test')).MockLanguageModelV3 },
  7: { ...(await import('ai7')), Model: (await import('ai7/test')).MockLanguageModelV4 },
};
const BETWEEN_PARTS = 5; // milliseconds

// What a provider says of the end of a model call: major 5 flat, 6 and 7 nested.
function finish(major, reason) {
  if (major === 5) {
    return { type: 'finish', finishReason: reason, usage: { inputTokens: 1, outputTokens: 1, totalTokens: 2 } };
  }
  const usage = { inputTokens: { total: 1, noCache: 1 }, outputTokens: { total: 1, text: 1 } };
  return { type: 'finish', finishReason: { unified: reason, raw: reason }, usage };
}

const text = (id, ...deltas) => [
  { type: 'text-start', id },
  ...deltas.map((delta) => ({ type: 'text-delta', id, delta })),
  { type: 'text-end', id },
];

const reasoning = (id, ...deltas) => [
  { type: 'reasoning-start', id, providerMetadata: { mock: { signature: 's' } } },
  ...deltas.map((delta) => ({ type: 'reasoning-delta', id, delta })),
  { type: 'reasoning-end', id },
];

const call = (id, toolName, input) => [
  { type: 'tool-input-start', id, toolName },
  ...JSON.stringify(input).match(/.{1,8}/g).map((delta) => ({ type: 'tool-input-delta', id, delta })),
  { type: 'tool-input-end', id },
  { type: 'tool-call', toolCallId: id, toolName, input: JSON.stringify(input) },
];

// A model whose n-th call streams the n-th list of parts; a function among them is run when it is its turn.
function model(major, ...calls) {
  let made = 0;
  return new SDKS[major].Model({
    doStream: async () => {
      const parts = calls[made++];
      async function* stream() {
        yield { type: 'stream-start', warnings: [] };
        for (const part of parts) {
          await new Promise((resolve) => setTimeout(resolve, BETWEEN_PARTS));
          if (typeof part === 'function') await part();
          else yield part;
        }
      }
      return { stream: Readable.toWeb(Readable.from(stream())) };
    },
  });
}

const CITATION = {
  startIndex: 0,
  endIndex: 3,
  source: { type: 'source', sourceType: 'url', id: 's1', url: 'https://example.org/' },
};

const weather = (sdk, execute, more = {}) =>
  sdk.tool({ description: 'The weather.', inputSchema: z.object({ city: z.string() }), execute, ...more });

// Scenario -> what the model says and does, as options of streamText, and how that becomes a response.
const SCENARIOS = {
  text: (sdk, major) => ({
    model: model(major, [...text('t', 'Hello', ', ', 'wörld ', '🌍'), finish(major, 'stop')]),
  }),
  reasoning: (sdk, major) => ({
    model: model(major, [...reasoning('r', 'Let me ', 'think.'), ...text('t', 'Yes.'), finish(major, 'stop')]),
  }),
  tools: (sdk, major) => ({
    model: model(
      major,
      [...call('c', 'weather', { city: 'Zürich' }), finish(major, 'tool-calls')],
      [...text('t', 'It is ', 'warm.'), finish(major, 'stop')],
    ),
    tools: { weather: weather(sdk, async ({ city }) => ({ city, degrees: 21 })) },
    stopWhen: sdk.stepCountIs?.(3) ?? sdk.isStepCount(3),
  }),
  'tool-without-a-result': (sdk, major) => ({
    model: model(major, [...call('c', 'weather', { city: 'Bern' }), finish(major, 'tool-calls')]),
    tools: { weather: weather(sdk, async () => null) },
  }),
  'tool-error': (sdk, major) => ({
    model: model(major, [...call('c', 'weather', { city: 'Nowhere' }), finish(major, 'tool-calls')]),
    tools: {
      weather: weather(sdk, async () => {
        throw new Error('no such city');
      }),
    },
  }),
  'tool-input-refused': (sdk, major) => ({
    model: model(major, [...call('c', 'weather', { town: 7 }), finish(major, 'tool-calls')]),
    tools: { weather: weather(sdk, async () => 21) },
  }),
  'client-side-tool': (sdk, major) => ({
    model: model(major, [...call('c', 'weather', { city: 'Basel' }), finish(major, 'tool-calls')]),
    tools: { weather: weather(sdk) },
  }),
  'dynamic-tool': (sdk, major) => ({
    model: model(major, [...call('c', 'anything', { any: 'thing' }), finish(major, 'tool-calls')]),
    tools: { anything: sdk.dynamicTool({ inputSchema: z.any(), execute: async (input) => input }) },
  }),
  approval: (sdk, major) => ({
    model: model(major, [...call('c', 'weather', { city: 'Genf' }), finish(major, 'tool-calls')]),
    tools: { weather: weather(sdk, async () => 21, { needsApproval: true }) },
  }),
  'error-in-the-stream': (sdk, major) => ({
    model: model(major, [
      { type: 'text-start', id: 't' },
      { type: 'text-delta', id: 't', delta: 'Half an ' },
      { type: 'error', error: new Error('overloaded') },
      finish(major, 'error'),
    ]),
  }),
  'error-at-once': (sdk, major) => ({
    model: new SDKS[major].Model({
      doStream: async () => {
        throw new Error('overloaded');
      },
    }),
    maxRetries: 0,
  }),
  abort: (sdk, major) => {
    const controller = new AbortController();
    return {
      model: model(major, [
        ...text('t', 'Half an ').slice(0, -1),
        () => controller.abort(),
        ...text('u', 'answer'),
        finish(major, 'stop'),
      ]),
      abortSignal: controller.signal,
    };
  },
  sources: (sdk, major) => ({
    model: model(major, [
      { type: 'source', sourceType: 'url', id: 's1', url: 'https://example.org/', title: 'Example' },
      { type: 'source', sourceType: 'document', id: 's2', mediaType: 'text/plain', title: 'Notes', filename: 'n.txt' },
      { type: 'file', mediaType: 'text/plain', data: major === 7 ? { type: 'data', data: 'aGVsbG8=' } : 'aGVsbG8=' },
      ...text('t', 'See there.'),
      finish(major, 'stop'),
    ]),
  }),
  'unknown-finish': (sdk, major) => ({
    model: model(major, [...text('t', 'Hm.'), finish(major, major === 5 ? 'unknown' : 'other')]),
  }),
  // What only the model of major 7 can say; the older ones pass over it.
  'new-in-7': (sdk, major) => ({
    model: model(major, [
      ...(major < 7 ? [] : [
        { type: 'custom', kind: 'mock.thought' },
        { type: 'reasoning-file', mediaType: 'text/plain', data: { type: 'data', data: 'aGVsbG8=' } },
      ]),
      ...text('t', 'See there.').slice(0, -1),
      { type: 'text-end', id: 't', ...(major === 7 && { citations: [CITATION] }) },
      finish(major, 'stop'),
    ]),
  }),
};

function answer(sdk, options) {
  return sdk.streamText({ prompt: 'Hello', onError: () => {}, ...options });
}

// Scenarios in which the application writes chunks of its own beside the model's.
const WRITTEN = {
  data: (sdk, major) => async ({ writer }) => {
    writer.write({ type: 'start', messageId: 'm', messageMetadata: { model: 'mock' } });
    writer.write({ type: 'data-progress', id: 'p', data: { percent: 0 } });
    writer.write({ type: 'data-note', data: null, transient: true });
    writer.write({ type: 'data-progress', id: 'p', data: { percent: 100 } });
    const result = answer(sdk, SCENARIOS.text(sdk, major));
    writer.merge(result.toUIMessageStream({ sendStart: false, sendFinish: false }));
    await result.consumeStream();
    writer.write({ type: 'message-metadata', messageMetadata: { tokens: 2 } });
    writer.write({ type: 'finish', messageMetadata: { seconds: 1.5 } });
  },
  'connection-lost': () => async ({ writer }) => {
    writer.write({ type: 'start' });
    writer.write({ type: 'start-step' });
    writer.write({ type: 'text-start', id: 't' });
    writer.write({ type: 'text-delta', id: 't', delta: 'Half an ' });
    await new Promise((resolve) => setTimeout(resolve, BETWEEN_PARTS));
  },
};

function respond(major, scenario) {
  const sdk = SDKS[major];
  if (SCENARIOS[scenario]) {
    return answer(sdk, SCENARIOS[scenario](sdk, major)).toUIMessageStreamResponse({ sendSources: true, sendReasoning: true });
  }
  const stream = sdk.createUIMessageStream({ execute: WRITTEN[scenario](sdk, major) });
  return sdk.createUIMessageStreamResponse({ stream });
}

const server = createServer(async (request, response) => {
  const [, major, scenario] = request.url.split('/');
  request.resume();
  if (!SDKS[major] || !(SCENARIOS[scenario] || WRITTEN[scenario])) {
    response.writeHead(404).end();
    return;
  }
  const { status, headers, body } = respond(Number(major), scenario);
  response.writeHead(status, Object.fromEntries(headers));
  for await (const piece of body) {
    if (scenario === 'connection-lost' && Buffer.from(piece).includes('[DONE]')) {
      response.destroy();
      return;
    }
    response.write(piece);
  }
  response.end();
});

server.listen(0, '127.0.0.1', () => console.log(server.address().port));
process.stdin.resume().on('end', () => process.exit());
