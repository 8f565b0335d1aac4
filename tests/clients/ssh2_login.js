// Log in with node's ssh2 through a ProxyCommand, as editors that are built on it do.
// Usage: node ssh2_login.js LOGIN AGENT PROGRAM [ARGUMENT...]
'use strict';

const { spawn } = require('child_process');
const { Duplex } = require('stream');
const { Client } = require('ssh2');

const [username, agent, program, ...words] = process.argv.slice(2);
const proxy = spawn(program, words, { stdio: ['pipe', 'pipe', 'inherit'] });
const sock = Duplex.from({ writable: proxy.stdin, readable: proxy.stdout });

function end(message, code) {
  console.log(message);
  proxy.kill();
  process.exit(code);
}

const client = new Client();
client.on('ready', () => end('ready', 0));
client.on('error', (error) => end(error.message, 1));
client.connect({ sock, username, agent });
