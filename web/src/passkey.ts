// Passkeys: the browser's part between the two calls of each ceremony.
import { call } from "./call";

type FromJSON = { publicKey: unknown };

export function passkeysWork(): boolean {
  return typeof PublicKeyCredential !== "undefined" && "parseRequestOptionsFromJSON" in PublicKeyCredential;
}

/** signInWithPasskey returns false when the person turned away from the browser's question. */
export async function signInWithPasskey(): Promise<boolean> {
  const options = await call<FromJSON>("POST", "/v1/sign-in/passkey/begin", {});
  const publicKey = PublicKeyCredential.parseRequestOptionsFromJSON(options.publicKey as PublicKeyCredentialRequestOptionsJSON);
  const found = await asked(navigator.credentials.get({ publicKey }));
  if (!found) return false;
  await call("POST", "/v1/sign-in/passkey/finish", found.toJSON());
  return true;
}

/** addPasskey returns false when the person turned away from the browser's question. */
export async function addPasskey(): Promise<boolean> {
  const options = await call<FromJSON>("POST", "/v1/me/passkeys/begin", {});
  const publicKey = PublicKeyCredential.parseCreationOptionsFromJSON(options.publicKey as PublicKeyCredentialCreationOptionsJSON);
  const made = await asked(navigator.credentials.create({ publicKey }));
  if (!made) return false;
  await call("POST", "/v1/me/passkeys/finish", made.toJSON());
  return true;
}

async function asked(question: Promise<Credential | null>): Promise<PublicKeyCredential | null> {
  try {
    return (await question) as PublicKeyCredential | null;
  } catch (e) {
    if (e instanceof DOMException && (e.name === "NotAllowedError" || e.name === "AbortError")) return null;
    throw e;
  }
}
