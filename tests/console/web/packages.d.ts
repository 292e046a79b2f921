// The npm packages, at the addresses under which the server has them. The page uses them without their types.
declare module "*/assets/xterm.mjs" {
  export const Terminal: any;
}
declare module "*/assets/addon-fit.mjs" {
  export const FitAddon: any;
}
declare module "*/assets/uplot.mjs" {
  const uPlot: any;
  export default uPlot;
}

// The states that the chart of the page has shown, noted by its test.
interface Window {
  states: string[];
}
