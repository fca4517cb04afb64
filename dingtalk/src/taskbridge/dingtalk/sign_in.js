// On the sign-in page inside DingTalk: the vendor's library, before this script, gives the code of the person.

(() => {
  const { corp: corpId, client: clientId, state, return: returnTo } = document.currentScript.dataset;
  const inBrowser = () => location.replace(`/sign-in?${new URLSearchParams({ return_to: returnTo, browser: "true" })}`);
  // Without its library, as when the network keeps it away, people sign in as in any browser.
  if (!globalThis.dd?.requestAuthCode) return inBrowser();
  globalThis.dd.requestAuthCode({
    corpId,
    clientId,
    success: ({ code }) => location.replace(`/sign-in/callback?${new URLSearchParams({ state, code })}`),
    fail: inBrowser,
  });
})();
