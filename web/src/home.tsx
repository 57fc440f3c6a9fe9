import { useEffect } from "react";
import { useLocation } from "wouter";
import { Card } from "./card";
import { useEstate } from "./estate";
import { Masthead, type MastheadProps } from "./masthead";
import { Offline } from "./notice";
import { PoolCard } from "./poolcard";
import { poolTitleOf, titleOf } from "./telling";
import type { Desktop } from "./words";

export function Home(p: MastheadProps) {
  const { estate, me } = p;
  useEstate(estate);
  const [, navigate] = useLocation();
  useEffect(() => {
    document.title = "Your desktops · Consort";
  }, []);
  // An administrator sees everybody's desktops; here are the person's own first.
  const mine = (d: Desktop) => Number(d.spec.person === me.person);
  const desktops = estate.all("Desktop").filter((d) => !d.spec.pool).sort((a, b) => mine(b) - mine(a) || titleOf(estate, a).localeCompare(titleOf(estate, b)));
  const pools = estate.all("Pool").sort((a, b) => poolTitleOf(estate, a).localeCompare(poolTitleOf(estate, b), "en", { numeric: true }));
  return (
    <div className="home">
      <Masthead {...p} here="/" />
      <Offline estate={estate} />
      <main>
        <h1>Your desktops</h1>
        {!estate.loaded && <Skeleton />}
        {estate.loaded && desktops.length + pools.length === 0 && (
          <div className="empty">
            <h2>No desktop yet</h2>
            <p>
              Nobody has made a desktop for you so far. Ask your administrator, or apply one:
              <br />
              <code>consort apply -f examples/first-desktop/</code>
            </p>
          </div>
        )}
        <ul className="cards">
          {pools.map((p) => (
            <li key={p.metadata.uid ?? `${p.metadata.project}/${p.metadata.name}`}>
              <PoolCard
                estate={estate}
                pool={p}
                person={me.person}
                onConnect={() => navigate(`/pools/${encodeURIComponent(p.metadata.project ?? "")}/${encodeURIComponent(p.metadata.name)}`)}
              />
            </li>
          ))}
          {desktops.map((d) => (
            <li key={d.metadata.uid ?? `${d.metadata.project}/${d.metadata.name}`}>
              <Card
                estate={estate}
                desktop={d}
                admin={me.admin ?? false}
                owner={d.spec.person === me.person ? "" : (d.spec.person ?? "nobody yet")}
                onConnect={(start) => {
                  document.title = `${titleOf(estate, d)} · Consort`;
                  navigate(`/desktops/${encodeURIComponent(d.metadata.project ?? "")}/${encodeURIComponent(d.metadata.name)}`, { state: { start } });
                }}
              />
            </li>
          ))}
        </ul>
      </main>
    </div>
  );
}

function Skeleton() {
  return (
    <div className="cards" aria-busy="true" aria-label="Loading your desktops">
      <div className="card ghost" />
      <div className="card ghost" />
    </div>
  );
}
