// A certified OpenID Connect provider for tests: `node provider.js PORT CALLBACK HOME`. It signs in anybody by a name and
// any password; the name is the claim `preferred_username`, which it tells at its user info endpoint only.

import Provider from "oidc-provider";

const [port, callback, home] = process.argv.slice(2);
const provider = new Provider(`http://127.0.0.1:${port}`, {
  clients: [
    {
      client_id: "task-center",
      client_secret: "a secret of the client",
      redirect_uris: [callback],
      post_logout_redirect_uris: [home],
    },
  ],
  claims: { openid: ["sub"], profile: ["preferred_username", "groups"] },
  cookies: { keys: ["a key of the provider's cookies"] },
  pkce: { required: () => true },
  findAccount: (_, id) => ({
    accountId: id,
    claims: () => ({ sub: id, preferred_username: id, groups: id === "olga" ? ["operators"] : [] }),
  }),
});
provider.listen(Number(port), "127.0.0.1", () => console.log("ready"));
