// Node's `ws`: one send a client, of a buffer that is made once a tick. CommonJS, so that NODE_PATH is looked into. Env: PORT, SIZE; begins at SIGUSR2.
const { WebSocketServer, WebSocket } = require("ws");

const SIZE = Number(process.env.SIZE), TICK = 100; // bytes a message, milliseconds
const FILLING = "x".repeat(SIZE - '{"filling":"","sent":1700000000000.000}'.length);
const server = new WebSocketServer({ host: "127.0.0.1", port: Number(process.env.PORT), backlog: 4096, perMessageDeflate: false });

process.once("SIGUSR2", () =>
  setInterval(() => {
    const sent = (performance.timeOrigin + performance.now()).toFixed(3);
    const message = Buffer.from(`{"filling":"${FILLING}","sent":${sent}}`);
    for (const client of server.clients) if (client.readyState === WebSocket.OPEN) client.send(message, { binary: false });
  }, TICK),
);
