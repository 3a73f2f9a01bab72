// An emulator of Fulcio with a certificate log and of Rekor v1, for what the real services need a database for: SCTs,
// promises, entries that are there already. The answers are @sigstore/mock's; what it leaves out is here: entries keep
// hashes instead of envelopes, are named by their leaf, and are found again.
// usage: server.js HOST PORT TRUSTED_ROOT_FILE
'use strict';
const { createHash, generateKeyPairSync } = require('crypto');
const { writeFileSync, renameSync } = require('fs');
const http = require('http');
const { fulcioHandler, initializeCA, initializeCTLog, initializeTLog } = require('@sigstore/mock');

const [host, port, rootFile] = process.argv.slice(2);
const url = `http://${host}:${port}`;
const sha256 = (bytes, encoding) => createHash('sha256').update(bytes).digest(encoding);
const newKey = () => generateKeyPairSync('ec', { namedCurve: 'prime256v1' });

// What Rekor keeps of a dsse entry (types/dsse v0.0.1).
function canonical(proposed) {
  if (proposed.kind !== 'dsse') return proposed;
  const { envelope, verifiers } = proposed.spec.proposedContent;
  const { payload, signatures } = JSON.parse(envelope);
  return {
    apiVersion: '0.0.1',
    kind: 'dsse',
    spec: {
      envelopeHash: { algorithm: 'sha256', value: sha256(envelope, 'hex') },
      payloadHash: { algorithm: 'sha256', value: sha256(Buffer.from(payload, 'base64'), 'hex') },
      signatures: signatures.map(({ sig }, index) => ({ signature: sig, verifier: verifiers[index] })),
    },
  };
}

async function main() {
  const [caKey, ctKey, logKey] = [newKey(), newKey(), newKey()];
  const ctlog = await initializeCTLog(ctKey);
  const ca = await initializeCA(caKey, ctlog);
  const tlog = await initializeTLog(url, logKey);
  const fulcio = fulcioHandler(ca);
  const entries = new Map();

  async function record(body) {
    const [entry] = Object.values(await tlog.log(canonical(JSON.parse(body))));
    const leaf = sha256(Buffer.concat([Buffer.from([0]), Buffer.from(entry.body, 'base64')]), 'hex');
    const known = [...entries.keys()].find((uuid) => uuid.endsWith(leaf));
    if (known) return [409, { code: 409, message: 'an equivalent entry already exists' }, known];
    const tree = BigInt(entry.verification.inclusionProof.checkpoint.split('\n')[0].split(' - ')[1]);
    const uuid = tree.toString(16).padStart(16, '0') + leaf;
    entries.set(uuid, { [uuid]: entry });
    return [201, entries.get(uuid), uuid];
  }

  async function answer(request, body) {
    const path = `/api/v1/log/entries`;
    if (request.method === 'GET' && request.url === '/api/v1/log') return [200, { treeID: '1' }];
    if (request.method === 'GET' && request.url.startsWith(`${path}/`)) {
      const entry = entries.get(request.url.slice(path.length + 1));
      return entry ? [200, entry] : [404, { code: 404, message: 'no such entry' }];
    }
    if (request.method === 'POST' && request.url === path) return record(body);
    if (request.method === 'POST' && request.url === fulcio.path) {
      const asked = JSON.parse(body);
      // Fulcio takes base64 of PEM, as protobuf's bytes are written; the package wants the PEM.
      asked.certificateSigningRequest = Buffer.from(asked.certificateSigningRequest, 'base64').toString();
      const { statusCode, response } = await fulcio.fn(JSON.stringify(asked));
      return [statusCode, statusCode < 300 ? JSON.parse(response) : { code: 3, message: response }];
    }
    return [404, { code: 5, message: 'Not Found' }];
  }

  http
    .createServer((request, response) => {
      const parts = [];
      request.on('data', (part) => parts.push(part));
      request.on('end', async () => {
        const [status, json, uuid] = await answer(request, Buffer.concat(parts).toString()).catch((error) => [
          400,
          { code: 3, message: String(error) },
        ]);
        const headers = { 'Content-Type': 'application/json' };
        if (uuid) headers.Location = `/api/v1/log/entries/${uuid}`;
        response.writeHead(status, headers).end(JSON.stringify(json));
      });
    })
    .listen(Number(port), host, () => {
      const spki = (key) => key.publicKey.export({ format: 'der', type: 'spki' });
      const validFor = { start: '2026-01-01T00:00:00Z' };
      const log = (key, baseUrl) => ({
        baseUrl,
        hashAlgorithm: 'SHA2_256',
        publicKey: { rawBytes: spki(key).toString('base64'), keyDetails: 'PKIX_ECDSA_P256_SHA_256', validFor },
        logId: { keyId: sha256(spki(key), 'base64') },
      });
      const certificate = Buffer.from(ca.rootCertificate).toString('base64');
      const root = {
        mediaType: 'application/vnd.dev.sigstore.trustedroot+json;version=0.1',
        tlogs: [log(logKey, url)],
        certificateAuthorities: [
          {
            subject: { organization: 'sigstore.mock', commonName: 'sigstore' },
            uri: url,
            certChain: { certificates: [{ rawBytes: certificate }] },
            validFor,
          },
        ],
        ctlogs: [log(ctKey, url)],
        timestampAuthorities: [],
      };
      writeFileSync(`${rootFile}.new`, JSON.stringify(root));
      renameSync(`${rootFile}.new`, rootFile);
    });
}

main();
