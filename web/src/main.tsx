import { StrictMode } from "react";
import { createRoot } from "react-dom/client";
import { App } from "./app";
import { takeCode } from "./signin";
import "./style.css";
import "./racks.css";

// The code leaves the address before anything else happens, so that neither
// the history nor a screenshot keeps it.
const code = takeCode();

createRoot(document.getElementById("root")!).render(
  <StrictMode>
    <App code={code} />
  </StrictMode>,
);
