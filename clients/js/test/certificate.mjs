/** A certificate for this machine, made by openssl for the length of a test. */
import { execFileSync } from 'node:child_process';
import { X509Certificate, createHash } from 'node:crypto';
import { existsSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { delimiter, join } from 'node:path';

export const hasOpenssl = (process.env.PATH ?? '').split(delimiter).some((dir) => existsSync(join(dir, 'openssl')));

export class Certificate {
  constructor() {
    this.dir = mkdtempSync(join(tmpdir(), 'rusty-socks-'));
    [this.cert, this.key] = ['server.pem', 'server.key'].map((name) => join(this.dir, name));
    execFileSync(
      'openssl',
      ['req', '-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes', '-days', '2']
        .concat(['-subj', '/CN=localhost', '-addext', 'subjectAltName=DNS:localhost,IP:127.0.0.1'])
        .concat(['-keyout', this.key, '-out', this.cert]),
      { stdio: 'ignore' },
    );
  }

  /** What a server needs to show it. */
  get settings() {
    return { tls_cert: this.cert, tls_key: this.key };
  }

  /** The hash of its public key, by which Chromium is told to trust it alone. */
  get keyHash() {
    const { publicKey } = new X509Certificate(readFileSync(this.cert));
    return createHash('sha256').update(publicKey.export({ type: 'spki', format: 'der' })).digest('base64');
  }

  remove() {
    rmSync(this.dir, { recursive: true, force: true });
  }
}
