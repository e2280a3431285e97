// @nostr-relay/core over ws, in memory: challenges everybody who connects, and shows private
// messages of kind 4 to their parties only. Prints its address, ends with its standard input.
import { createServer } from 'node:http';
import { WebSocketServer } from 'ws';
import core from '@nostr-relay/core';
import sqlite from '@nostr-relay/event-repository-sqlite';

const repository = new sqlite.EventRepositorySqlite(':memory:');
const server = createServer();
let relay;
new WebSocketServer({ server }).on('connection', (socket) => {
  relay.handleConnection(socket);
  socket.on('message', async (text) => {
    try {
      await relay.handleMessage(socket, JSON.parse(text.toString()));
    } catch (error) {
      socket.send(JSON.stringify(['NOTICE', String(error)]));
    }
  });
  socket.on('close', () => relay.handleDisconnect(socket));
});
server.listen(0, '127.0.0.1', async () => {
  await repository.init?.();
  relay = new core.NostrRelay(repository, { hostname: '127.0.0.1' });
  console.log(`ws://127.0.0.1:${server.address().port}`);
});
process.stdin.on('end', () => process.exit(0)).resume();
