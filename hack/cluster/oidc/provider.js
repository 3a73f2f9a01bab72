// A certified OpenID Connect provider for the tests of interactive logins: any
// login with any password is the person LOGIN@example.com.
//   node provider.js ISSUER
// Clients: `sigstore` (tokens live an hour and can be renewed), and for logins
// that outlive what they gave, `short` (5 s, renewable) and `once` (5 s, not).
import Provider from 'oidc-provider';

const issuer = process.argv[2];
const { hostname, port } = new URL(issuer);
const device = 'urn:ietf:params:oauth:grant-type:device_code';

function client(id, ...grants) {
  return {
    client_id: id,
    application_type: 'native',
    token_endpoint_auth_method: 'none',
    grant_types: ['authorization_code', device, ...grants],
    response_types: ['code'],
    // Of a native client's loopback addresses any port is the same one.
    redirect_uris: ['http://localhost/auth/callback'],
  };
}

const provider = new Provider(issuer, {
  clients: [client('sigstore', 'refresh_token'), client('short', 'refresh_token'), client('once')],
  scopes: ['openid', 'offline_access'],
  claims: { openid: ['sub'], email: ['email', 'email_verified'] },
  conformIdTokenClaims: false,
  features: { deviceFlow: { enabled: true } },
  pkce: { required: () => true },
  ttl: { IdToken: (ctx, token, { clientId }) => (clientId === 'sigstore' ? 3600 : 5) },
  findAccount: (ctx, id) => ({
    accountId: id,
    claims: () => ({ sub: id, email: `${id}@example.com`, email_verified: true }),
  }),
});
provider.listen(Number(port), hostname);
