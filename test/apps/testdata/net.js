// Node's net: "server PORT" reads to the end, then answers with the SHA-256
// (allowHalfOpen); "client PORT FILE" sends the file, ends its side and prints
// the answer and both ends' names.
'use strict';
const net = require('net');
const fs = require('fs');
const crypto = require('crypto');

const [role, port, file] = [process.argv[2], Number(process.argv[3]), process.argv[4]];

if (role === 'server') {
  net.createServer({ allowHalfOpen: true }, (conn) => {
    const hash = crypto.createHash('sha256');
    const peer = `${conn.remoteAddress}:${conn.remotePort}`;
    conn.on('data', (chunk) => hash.update(chunk));
    conn.on('end', () => conn.end(`${hash.digest('hex')} ${peer}\n`));
  }).listen(port, '127.0.0.1', () => console.log('listening'));
} else {
  const conn = net.connect({ port, host: '127.0.0.1', allowHalfOpen: true }, () => {
    const me = `${conn.localAddress}:${conn.localPort}`;
    conn.setNoDelay(true);
    conn.setKeepAlive(true, 1000);
    fs.createReadStream(file).pipe(conn);
    let answer = '';
    conn.on('data', (chunk) => { answer += chunk; });
    conn.on('end', () => {
      const [sum, peer] = answer.trim().split(' ');
      console.log(sum, peer === me ? 'names agree' : `names differ: ${peer} and ${me}`);
    });
  });
  conn.on('error', (err) => { console.error(err); process.exit(1); });
}
