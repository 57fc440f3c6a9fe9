// Icons are drawn here: nothing is fetched, and they take the text's colour.
import type { ReactNode } from "react";

const paths = {
  apps: <path d="M4 4h5v5H4zM11 4h5v5h-5zM4 11h5v5H4zM11 11h5v5h-5z" />,
  clipboard: <path d="M7 4H5.500A1.500 1.500 0 0 0 4 5.500v10A1.500 1.500 0 0 0 5.500 17h9a1.500 1.500 0 0 0 1.500-1.500v-10A1.500 1.500 0 0 0 14.500 4H13M7.500 2.500h5v3h-5zM7 9.500h6M7 13h4" />,
  files: <path d="M5 2.500h6.500L15 6v11.500H5zM11.500 2.500V6H15M10 14.500V9M7.800 11 10 8.800 12.200 11" />,
  keyboard: <path d="M2.500 5.500h15v9h-15zM5.500 8.500h.01M8.500 8.500h.01M11.500 8.500h.01M14.500 8.500h.01M6.500 11.800h7" />,
  attention: <path d="M10 2.800 3.500 5.500v4.300c0 3.600 2.600 6.200 6.500 7.400 3.900-1.200 6.500-3.800 6.500-7.400V5.500zM10 6.800v3.700M10 13.300h.01" />,
  fit: <path d="M3 7V3h4M13 3h4v4M17 13v4h-4M7 17H3v-4" />,
  actual: <path d="M3 4.500h14v11H3zM7 8v4M13 8v4M10 9h.01M10 11.500h.01" />,
  full: <path d="M12 3h5v5M17 3l-5.500 5.500M8 17H3v-5M3 17l5.500-5.500" />,
  reset: <path d="M4 10a6 6 0 1 0 2-4.500L4 7.300M4 3.500v3.800h3.800" />,
  throw: <path d="M3.500 5.500h13M8 5.500V3.500h4v2M5.200 5.500l.8 11h8l.8-11M8.500 8.500v5M11.500 8.500v5" />,
  leave: <path d="M10 3v7M6.200 5.500a6 6 0 1 0 7.600 0" />,
  back: <path d="M12 4.500 6.500 10l5.500 5.500" />,
  check: <path d="m4.500 10.500 3.500 3.500 7.500-8" />,
  close: <path d="m5 5 10 10M15 5 5 15" />,
  key: <path d="M12.500 11a4 4 0 1 0-3.700-2.500L3.500 13.800V16.500h2.700v-2h2v-2l1.600-1.600c.8.1 1.700.1 2.700.1zM13.500 6.500h.01" />,
  person: <path d="M10 10a3.300 3.300 0 1 0 0-6.600A3.300 3.300 0 0 0 10 10zM3.800 16.800c.6-3 3-4.500 6.200-4.500s5.600 1.500 6.200 4.500" />,
  out: <path d="M8 3.500H4.500v13H8M12.500 6.500 16 10l-3.500 3.500M16 10H8" />,
  alert: <path d="M10 3 2.500 16.500h15zM10 8v4M10 14.300h.01" />,
  screen: <path d="M3 4h14v9.500H3zM7.500 16.500h5M10 13.500v3" />,
  rack: <path d="M3.500 4h13v5h-13zM3.500 11h13v5h-13zM6.500 6.500h.01M6.500 13.500h.01M9.500 6.500h4M9.500 13.500h4" />,
  move: <path d="M3.500 7h12M12.500 4l3 3-3 3M16.500 13h-12M7.500 10l-3 3 3 3" />,
  right: <path d="M3 10h13M12.500 6.500 16 10l-3.500 3.500" />,
  film: <path d="M3 5h14v10H3zM6 5v10M14 5v10M8.800 8v4l3-2z" />,
  bars: <path d="M4 16.500V10M8 16.500v-13M12 16.500v-5M16 16.500V6.500" />,
} satisfies Record<string, ReactNode>;

export function Icon({ name }: { name: keyof typeof paths }) {
  return (
    <svg className="icon" viewBox="0 0 20 20" aria-hidden="true">
      {paths[name]}
    </svg>
  );
}

/** Mark is the product's sign: four voices. */
export function Mark() {
  return (
    <svg className="mark" viewBox="0 0 32 32" aria-hidden="true">
      <rect width="32" height="32" rx="8" />
      <path d="M8 13v6" stroke="#e4a853" />
      <path d="M13.300 9v14" stroke="#6fb1a0" />
      <path d="M18.600 11.500v9" stroke="#7fa6d6" />
      <path d="M24 7.500v17" stroke="#d98a83" />
    </svg>
  );
}
