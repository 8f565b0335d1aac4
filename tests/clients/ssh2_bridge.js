// Use a machine with node's ssh2 through a ProxyCommand, as editors that are built on it do: a command,
// a shell, files, and a forwarded connection.  Prints one line of JSON with what came of each, and
// "ready" on stderr when it is let in.
// Usage: node ssh2_bridge.js READY_TIMEOUT_MS PORT PROGRAM [ARGUMENT...]
'use strict';

const { spawn } = require('child_process');
const { Duplex } = require('stream');
const { Client } = require('ssh2');

const [readyTimeout, port, program, ...words] = process.argv.slice(2);
const proxy = spawn(program, words, { stdio: ['pipe', 'pipe', 'inherit'] });
const sock = Duplex.from({ writable: proxy.stdin, readable: proxy.stdout });
const client = new Client();
const seen = { banners: [] };

function collect(stream) {
  return new Promise((resolve, reject) => {
    let text = '';
    let code = null;
    stream.on('data', (data) => { text += data; });
    stream.on('exit', (status) => { code = status; });
    stream.on('close', () => resolve([text, code]));
    stream.on('error', reject);
  });
}

function call(method, ...values) {
  return new Promise((resolve, reject) => {
    method.call(client, ...values, (error, value) => (error ? reject(error) : resolve(value)));
  });
}

async function run() {
  const command = await call(client.exec, 'cat; exit 3');
  command.end('through');
  seen.exec = await collect(command);

  const shell = await call(client.shell);
  shell.end('echo "in a shell"; exit 4\n');
  const [text, code] = await collect(shell);
  seen.shell = [text.includes('in a shell'), code];

  const sftp = await call(client.sftp);
  const data = Buffer.alloc(200000, 'text');
  await new Promise((resolve, reject) => {
    sftp.writeFile('copy', data, (error) => (error ? reject(error) : resolve()));
  });
  seen.sftp = await new Promise((resolve, reject) => {
    sftp.readFile('copy', (error, back) => (error ? reject(error) : resolve(back.equals(data))));
  });

  const forwarded = await call(client.forwardOut, '127.0.0.1', 0, '127.0.0.1', Number(port));
  forwarded.end();
  seen.forwardOut = (await collect(forwarded))[0];
}

function end(error) {
  if (error) seen.error = error.message;
  console.log(JSON.stringify(seen));
  client.end();
  process.exitCode = error ? 1 : 0;
}

client.on('banner', (text) => seen.banners.push(text));
client.on('ready', () => {
  process.stderr.write('ready\n');
  run().then(() => end(), end);
});
client.on('error', end);
client.connect({ sock, username: 'anybody', readyTimeout: Number(readyTimeout) });
