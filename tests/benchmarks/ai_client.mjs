// How long the AI SDK's own chat client takes to read a stream: `node ai_client.mjs ROUNDS < body`.
// It reads 64 KiB at a time, parses and validates every chunk, and does nothing else with it. Standard output: one JSON object.

import { readFileSync } from 'node:fs';
import { DefaultChatTransport } from '../interop/node_modules/ai7/dist/index.js';

const CHUNK = 64 * 1024;
const body = readFileSync(0);

class Transport extends DefaultChatTransport {
  read(stream) {
    return this.processResponseStream(stream);
  }
}

function chunks() {
  let at = 0;
  return new ReadableStream({
    pull(controller) {
      if (at >= body.length) return controller.close();
      controller.enqueue(new Uint8Array(body.subarray(at, at + CHUNK)));
      at += CHUNK;
    },
  });
}

const taken = [];
let count = 0;
for (let round = 0; round < Number(process.argv[2]); round += 1) {
  count = 0;
  const before = process.cpuUsage();
  for await (const chunk of new Transport().read(chunks())) count += chunk.type ? 1 : 0;
  const { user, system } = process.cpuUsage(before);
  taken.push(1000 * (user + system) / count);
}
taken.sort((one, other) => one - other);
console.log(JSON.stringify({ events: count, nanoseconds: taken[Math.floor(taken.length / 2)] }));
