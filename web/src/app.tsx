// The frame around the pages: who is signed in, the one watch, the header.
import { useCallback, useEffect, useRef, useState } from "react";
import { Route, Switch } from "wouter";
import { call, Fault } from "./call";
import { Desk } from "./desk";
import { Estate } from "./estate";
import { Home } from "./home";
import { Hypervisors } from "./hypervisors";
import { Matrix } from "./matrix";
import { Moves } from "./moves";
import { Notice } from "./notice";
import { forgetPictures } from "./pictures";
import { Recordings } from "./recordings";
import { SignIn, takeCode } from "./signin";
import { wait } from "./visit";
import { follow } from "./watch";
import { Welcome } from "./welcome";
import { kinds, type Me } from "./words";

type Who = { state: "asking" } | { state: "out" } | { state: "in"; me: Me; first: boolean } | { state: "broken"; fault: unknown };

export function App({ code: first }: { code: string }) {
  const [code, setCode] = useState(first);
  const [who, setWho] = useState<Who>({ state: first ? "out" : "asking" });
  const estate = useRef<Estate>(null);
  estate.current ??= new Estate();

  const ask = useCallback((first: boolean) => {
    call<Me>("GET", "/v1/me").then(
      (me) => {
        setCode("");
        setWho({ state: "in", me, first });
      },
      (e: unknown) => setWho(e instanceof Fault && e.kind === "unauthenticated" ? { state: "out" } : { state: "broken", fault: e }),
    );
  }, []);

  useEffect(() => {
    if (who.state === "asking") ask(false);
  }, [who.state, ask]);

  // A link pasted into a page that is open changes the address and loads nothing.
  useEffect(() => {
    const changed = () => {
      const next = takeCode();
      if (!next) return;
      setCode(next);
      setWho({ state: "out" });
    };
    window.addEventListener("hashchange", changed);
    return () => window.removeEventListener("hashchange", changed);
  }, []);

  const signedIn = who.state === "in";
  useEffect(() => {
    if (!signedIn) return;
    const stop = new AbortController();
    let hurry = new AbortController();
    const online = () => hurry.abort();
    window.addEventListener("online", online);
    window.addEventListener("consort:retry", online);
    void follow({
      estate: estate.current!,
      kinds,
      signal: stop.signal,
      wait: (ms, signal) => {
        hurry = new AbortController();
        return wait(ms, AbortSignal.any([signal, hurry.signal]));
      },
      signedOut: () => setWho({ state: "out" }),
    });
    return () => {
      stop.abort();
      window.removeEventListener("online", online);
      window.removeEventListener("consort:retry", online);
    };
  }, [signedIn]);

  if (who.state === "asking") return <main className="blank" aria-busy="true" aria-label="Loading" />;
  if (who.state === "broken") {
    return (
      <main className="centre">
        <Notice fault={who.fault} action="Try again" onAction={() => setWho({ state: "asking" })} />
      </main>
    );
  }
  if (who.state === "out") return <SignIn key={code} code={code} onDone={ask} />;
  const leave = () => {
    void call("POST", "/v1/sign-out", {}).catch(() => undefined).finally(() => {
      forgetPictures();
      estate.current = new Estate(); // the next person must not see what was here
      setWho({ state: "out" });
    });
  };
  const head = { estate: estate.current, me: who.me, onSignOut: leave };
  return (
    <Switch>
      <Route path="/desktops/:project/:name">
        {(p) => <Desk key={`${p.project}/${p.name}`} estate={estate.current!} project={p.project} name={p.name} />}
      </Route>
      <Route path="/pools/:project/:name">
        {(p) => <Desk key={`pool/${p.project}/${p.name}`} estate={estate.current!} project={p.project} pool={p.name} />}
      </Route>
      <Route path="/hypervisors">
        <Hypervisors {...head} />
      </Route>
      <Route path="/moves">
        <Moves {...head} />
      </Route>
      <Route path="/matrix">
        <Matrix {...head} />
      </Route>
      <Route path="/recordings/:id?">{(p) => <Recordings {...head} {...(p.id ? { id: p.id } : {})} />}</Route>
      <Route path="/account">
        <Welcome me={who.me} first={false} />
      </Route>
      <Route>{who.first ? <Welcome me={who.me} first onDone={() => setWho({ ...who, first: false })} /> : <Home {...head} />}</Route>
    </Switch>
  );
}
