// node open_report.js report.dcm
//
// Opens a structured report as OHIF does: by dcmjs, its parser, and its own extension for structured reports, and prints
// what of it OHIF then knows. What the extension needs to draw (React, Cornerstone) stands here as things that do
// nothing: nothing is drawn. package-lock.json leaves them out for that reason.
"use strict";

const fs = require("node:fs");
const Module = require("node:module");
const dcmjs = require("dcmjs");

const nothing = new Proxy(function () {}, {
  get: (target, name) => (name === Symbol.toPrimitive ? () => "" : nothing),
  apply: () => nothing,
  construct: () => ({}),
});
const load = Module._load;
Module._load = (name, parent, ...rest) =>
  /^(@cornerstonejs|@ohif)\/(?!extension-cornerstone-dicom-sr)|^gl-matrix$/.test(name) && parent?.id.includes("@ohif")
    ? nothing
    : load(name, parent, ...rest);

const extension = require("@ohif/extension-cornerstone-dicom-sr").default;

async function open(path) {
  const bytes = new Uint8Array(fs.readFileSync(path));
  const { dict } = dcmjs.data.DicomMessage.readFile(bytes.buffer);
  const instance = dcmjs.data.DicomMetaDictionary.naturalizeDataset(dict);
  const services = {
    displaySetService: { activeDisplaySets: [], subscribe() {}, EVENTS: {} },
    measurementService: { getSourceMappings: () => [] },
  };
  const [handler] = extension.getSopClassHandlerModule({
    servicesManager: { services },
    extensionManager: { getDataSources: () => [{}] },
  });
  const [report] = handler.getDisplaySetsFromSeries([instance]);
  await report.load();
  const { isImagingMeasurementReport, isLoaded, referencedImages, measurements } = report;
  return { isImagingMeasurementReport, isLoaded, referencedImages, measurements };
}

open(process.argv[2]).then(found => process.stdout.write(JSON.stringify(found)));
