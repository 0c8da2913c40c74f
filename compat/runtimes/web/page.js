// The page: it compiles and runs graphs, and keeps their states and outputs on the device.
//
// The page asks its server for one call after the other (see exchange), and answers each when its
// work has ended on the device. Numbers leave the device only if a call asks for them.

const ARRAYS = {
  float32: Float32Array, int32: Int32Array, int64: BigInt64Array, uint8: Uint8Array,
  int8: Int8Array, bool: Uint8Array, float64: Float64Array, uint32: Uint32Array,
};
const AHEAD = 32; // Most steps that may be queued on the device.
const SHOWN_EVERY = 250; // Milliseconds between two updates of the table that a person sees.

let ort;
let device; // The device that holds tensors: a Host, Gpu or Nn.
let provider;
const graphs = new Map(); // Compiled graphs by key, each with its states and last outputs.

// ONNX Runtime logs the placement of nodes while it compiles a graph. It keeps the console that it
// finds when it is loaded, which is this one. Warnings are passed on, other lines are not.
const PLACEMENT = /placed on|partitions supported/;
const TRACED = /\[(?:V|I):onnxruntime/;
const SHADER = /=== WebGPU Shader code .* (Start|End) ===/;
const placements = [];
let inShader = false;
for (const name of ['log', 'info', 'debug', 'warn', 'error']) {
  const before = console[name].bind(console);
  console[name] = (...words) => {
    const text = words.join(' ');
    const shader = SHADER.exec(text);
    if (shader) inShader = shader[1] === 'Start';
    else if (PLACEMENT.test(text)) placements.push(text);
    else if (text && !inShader && !TRACED.test(text)) before(...words);
  };
}

// Messages ----------------------------------------------------------------------------------------

function decode(buffer) {
  const length = new DataView(buffer).getUint32(0, true);
  const header = JSON.parse(new TextDecoder().decode(new Uint8Array(buffer, 4, length)));
  header.tensors = header.tensors.map(({ dtype, dims, offset, bytes }) => {
    const Type = ARRAYS[dtype];
    return { dtype, dims, data: new Type(buffer, offset, bytes / Type.BYTES_PER_ELEMENT) };
  });
  return header;
}

function encode(header, tensors = []) {
  const aligned = (offset) => Math.ceil(offset / 8) * 8;
  const described = tensors.map(({ dtype, dims, data }) => (
    { dtype, dims: [...dims], offset: 0, bytes: data.byteLength }
  ));
  const room = JSON.stringify({ ...header, tensors: described }).length * 3 + 12 * tensors.length;
  let end = aligned(4 + room);
  for (const entry of described) {
    entry.offset = end;
    end = aligned(end + entry.bytes);
  }
  const text = new TextEncoder().encode(JSON.stringify({ ...header, tensors: described }));
  const message = new Uint8Array(end);
  message.fill(32, 4, 4 + room);
  new DataView(message.buffer).setUint32(0, room, true);
  message.set(text, 4);
  tensors.forEach(({ data }, index) => {
    const bytes = new Uint8Array(data.buffer, data.byteOffset, data.byteLength);
    message.set(bytes, described[index].offset);
  });
  return message;
}

// Devices -----------------------------------------------------------------------------------------
//
// A device uploads, downloads, allocates and frees tensors, writes slices into caches, and waits.

const size = (dims) => dims.reduce((product, dim) => product * dim, 1);
const bytesOf = (dtype, dims) => size(dims) * ARRAYS[dtype].BYTES_PER_ELEMENT;
const cpuTensor = ({ dtype, dims, data }) => new ort.Tensor(dtype, data, dims);

class Host {
  location = 'cpu';

  upload(tensor) { return cpuTensor({ ...tensor, data: tensor.data.slice() }); }
  async download(tensor) { return tensor.data; }
  allocate() { return null; } // ONNX Runtime copies every output out of its heap.
  free() {}
  async finish() {}

  write(writes, position) {
    for (const { cache, slice, axis } of writes) {
      const { outer, inner, past } = strides(cache.current.dims, axis);
      for (let row = 0; row < outer; row += 1) {
        const values = slice.data.subarray(row * inner, (row + 1) * inner);
        cache.current.data.set(values, (row * past + position) * inner);
      }
    }
  }
}

function strides(dims, axis) {
  return { outer: size(dims.slice(0, axis)), past: dims[axis], inner: size(dims.slice(axis + 1)) };
}

const WRITE = `
@group(0) @binding(0) var<storage, read> slice: array<u32>;
@group(0) @binding(1) var<storage, read_write> cache: array<u32>;
@group(0) @binding(2) var<uniform> shape: vec4<u32>; // elements of the slice, inner, past
@group(0) @binding(3) var<uniform> position: vec4<u32>;
@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
  let i = id.x;
  if (i >= shape.x) { return; }
  let outer = i / shape.y;
  cache[(outer * shape.z + position.x) * shape.y + i % shape.y] = slice[i];
}`;

class Gpu {
  location = 'gpu-buffer';
  faults = [];
  staging = new Map(); // Idle buffers for downloads, by size.

  // ONNX Runtime makes the device with the first graph; its tensors must live on that one.
  async begin() {
    this.device = await ort.env.webgpu.device;
    this.device.addEventListener('uncapturederror', (event) => {
      this.faults.push(event.error.message);
    });
    this.device.lost.then((info) => {
      this.lost = `the GPU device was lost (${info.reason}): ${info.message}`;
    });
    this.pipeline = this.device.createComputePipeline({
      layout: 'auto',
      compute: { module: this.device.createShaderModule({ code: WRITE }), entryPoint: 'main' },
    });
    this.position = this.uniform([0, 0, 0, 0]);
  }

  uniform(values) {
    const { COPY_DST, UNIFORM } = GPUBufferUsage;
    const buffer = this.device.createBuffer({ size: 16, usage: UNIFORM | COPY_DST });
    this.device.queue.writeBuffer(buffer, 0, new Uint32Array(values));
    return buffer;
  }

  allocate(dtype, dims) {
    const { COPY_DST, COPY_SRC, STORAGE } = GPUBufferUsage;
    const buffer = this.device.createBuffer({
      size: Math.max(16, Math.ceil(bytesOf(dtype, dims) / 16) * 16),
      usage: STORAGE | COPY_SRC | COPY_DST,
    });
    return ort.Tensor.fromGpuBuffer(buffer, { dataType: dtype, dims });
  }

  fill(tensor, data) {
    // The length of a copy must be a multiple of four bytes. Arrays of small elements are padded.
    const padded = new Uint8Array(Math.ceil(data.byteLength / 4) * 4);
    padded.set(new Uint8Array(data.buffer, data.byteOffset, data.byteLength));
    this.device.queue.writeBuffer(tensor.gpuBuffer, 0, padded);
  }

  upload({ dtype, dims, data }) {
    const tensor = this.allocate(dtype, dims);
    this.fill(tensor, data);
    return tensor;
  }

  async download(tensor) {
    if (tensor.location === 'cpu') return tensor.data;
    const bytes = bytesOf(tensor.type, tensor.dims);
    const size = Math.ceil(bytes / 4) * 4;
    const { COPY_DST, MAP_READ } = GPUBufferUsage;
    const idle = this.staging.get(size) ?? [];
    this.staging.set(size, idle);
    const staging = idle.pop() ?? this.device.createBuffer({ size, usage: MAP_READ | COPY_DST });
    const encoder = this.device.createCommandEncoder();
    encoder.copyBufferToBuffer(tensor.gpuBuffer, 0, staging, 0, size);
    this.device.queue.submit([encoder.finish()]);
    await staging.mapAsync(GPUMapMode.READ);
    const data = new ARRAYS[tensor.type](staging.getMappedRange().slice(0, bytes));
    staging.unmap();
    idle.push(staging); // Reused, as a new buffer for every token slows a decoder down.
    return data;
  }

  free(tensor) {
    if (tensor.location === 'gpu-buffer') tensor.gpuBuffer.destroy();
  }

  async finish() {
    await this.device?.queue.onSubmittedWorkDone();
  }

  write(writes, position) {
    this.device.queue.writeBuffer(this.position, 0, new Uint32Array([position, 0, 0, 0]));
    const encoder = this.device.createCommandEncoder();
    const pass = encoder.beginComputePass();
    pass.setPipeline(this.pipeline);
    for (const write of writes) {
      pass.setBindGroup(0, this.bound(write));
      pass.dispatchWorkgroups(Math.ceil(size(write.slice.dims) / 64));
    }
    pass.end();
    this.device.queue.submit([encoder.finish()]);
  }

  // Cache and slice are the same buffers at every step, so that they are bound once.
  bound({ cache, slice, axis }) {
    const from = slice.gpuBuffer;
    if (cache.boundTo !== from || cache.boundFor !== cache.current.gpuBuffer) {
      const { inner, past } = strides(cache.current.dims, axis);
      const shape = this.uniform([size(slice.dims), inner, past, 0]);
      const buffers = [from, cache.current.gpuBuffer, shape, this.position];
      cache.binding = this.device.createBindGroup({
        layout: this.pipeline.getBindGroupLayout(0),
        entries: buffers.map((buffer, binding) => ({ binding, resource: { buffer } })),
      });
      [cache.boundTo, cache.boundFor] = [from, cache.current.gpuBuffer];
    }
    return cache.binding;
  }
}

class Nn {
  location = 'ml-tensor';
  writers = new Map();

  constructor(context) {
    this.context = context;
    context.lost?.then((info) => {
      this.lost = `the WebNN context was lost: ${info?.message}`;
    });
  }

  async make(dtype, dims) {
    const mlTensor = await this.context.createTensor({
      dataType: dtype === 'bool' ? 'uint8' : dtype, shape: dims, readable: true, writable: true,
    });
    return ort.Tensor.fromMLTensor(mlTensor, { dataType: dtype, dims });
  }

  allocate(dtype, dims) { return this.make(dtype, dims); }

  fill(tensor, data) { this.context.writeTensor(tensor.mlTensor, data); }

  async upload({ dtype, dims, data }) {
    const tensor = await this.make(dtype, dims);
    this.fill(tensor, data);
    return tensor;
  }

  async download(tensor) {
    if (tensor.location === 'cpu') return tensor.data;
    return new ARRAYS[tensor.type](await this.context.readTensor(tensor.mlTensor));
  }

  free(tensor) {
    if (tensor.location === 'ml-tensor') tensor.mlTensor.destroy();
  }

  async finish() {
    // The context works in order: a read that ends has waited for all work before it.
    if (!this.fence) this.fence = await this.make('int32', [1]);
    this.context.writeTensor(this.fence.mlTensor, new Int32Array([1]));
    await this.context.readTensor(this.fence.mlTensor);
  }

  // A tensor may not be input and output of one call: each cache has two, which take turns.
  async write(writes, position, graph) {
    if (!this.writers.has(graph)) this.writers.set(graph, await this.writer(writes));
    const { built, at } = this.writers.get(graph);
    this.context.writeTensor(at, new Int32Array([position]));
    const inputs = { position: at };
    const outputs = {};
    writes.forEach(({ cache, slice }, index) => {
      inputs[`cache${index}`] = cache.current.mlTensor;
      inputs[`slice${index}`] = slice.mlTensor;
      outputs[`next${index}`] = cache.next.mlTensor;
    });
    this.context.dispatch(built, inputs, outputs);
    for (const { cache } of writes) [cache.current, cache.next] = [cache.next, cache.current];
  }

  async writer(writes) {
    const builder = new MLGraphBuilder(this.context);
    const position = builder.input('position', { dataType: 'int32', shape: [1] });
    const outputs = {};
    for (const [index, { cache, slice, axis }] of writes.entries()) {
      const { dims, type } = cache.current;
      const past = builder.input(`cache${index}`, { dataType: type, shape: dims });
      const value = builder.input(`slice${index}`, { dataType: type, shape: slice.dims });
      const shape = dims.map((dim, place) => (place === axis ? dim : 1));
      const places = builder.constant(
        { dataType: 'int32', shape }, Int32Array.from({ length: dims[axis] }, (_, i) => i),
      );
      const here = builder.equal(places, builder.reshape(position, dims.map(() => 1)));
      outputs[`next${index}`] = builder.where(here, value, past);
    }
    const at = await this.context.createTensor({
      dataType: 'int32', shape: [1], writable: true,
    });
    return { built: await builder.build(outputs), at };
  }
}

// Count of buffers and tensors that were made and not destroyed, ONNX Runtime's own included. A
// garbage collector may not free lost ones before a GPU's memory is full.
const alive = { count: 0, bytes: 0 };

function counted(maker, method, size) {
  const make = maker?.prototype[method];
  if (!make) return;
  maker.prototype[method] = function made(described) {
    const add = (one) => {
      const destroy = one.destroy.bind(one);
      const bytes = size(described);
      let there = 1;
      one.destroy = () => {
        alive.count -= there;
        alive.bytes -= there * bytes;
        there = 0;
        return destroy();
      };
      alive.count += 1;
      alive.bytes += bytes;
      return one;
    };
    const one = make.call(this, described);
    return one instanceof Promise ? one.then(add) : add(one);
  };
}

counted(globalThis.GPUDevice, 'createBuffer', (described) => described.size);
counted(globalThis.MLContext, 'createTensor', ({ shape }) => 4 * size(shape));

// Graphs ------------------------------------------------------------------------------------------

async function compile(call) {
  const { key, model, data, outputs, states, constants, free, options } = call;
  const settings = {
    executionProviders: [options],
    graphOptimizationLevel: 'all',
    externalData: data,
    freeDimensionOverrides: free,
    logSeverityLevel: 0,
  };
  // Outputs stay on the device until they are asked for, so that steps do not wait for one another.
  if (device.location !== 'cpu') settings.preferredOutputLocation = device.location;
  placements.length = 0;
  const session = await ort.InferenceSession.create(model, settings);
  const lines = placements.slice();
  if (device instanceof Gpu && !device.device) await device.begin();
  const entry = {
    session, key, outputs, run: 0,
    made: new Map(), ready: new Map(), spare: new Map(), states: new Map(),
    constants: Object.fromEntries(Object.entries(constants).map(([name, value]) => (
      [name, new ort.Tensor('int64', BigInt64Array.of(BigInt(value)), [])]
    ))),
    stated: states,
  };
  for (const [index, { shape, type }] of session.outputMetadata.entries()) {
    const name = session.outputNames[index];
    const still = shape.every((dim) => typeof dim === 'number') && size(shape) > 0;
    if (still && type in ARRAYS) {
      entry.ready.set(name, await device.allocate(type, shape));
    }
  }
  graphs.set(key, entry);
  await reset(entry);
  return { lines };
}

async function reset(entry) {
  const swapped = (update) => update === 'replace' || device instanceof Nn;
  for (const { name, dims, dtype, initial, update } of entry.stated) {
    const data = new ARRAYS[dtype](size(dims)).fill(initial);
    let state = entry.states.get(name);
    if (!state) {
      state = {
        current: await device.upload({ dtype, dims, data }),
        next: swapped(update) ? await device.allocate(dtype, dims) : null,
      };
      entry.states.set(name, state);
    } else if (device instanceof Host) state.current = device.upload({ dtype, dims, data });
    else device.fill(state.current, data);
  }
}

// A tensor may not be input and output of one call: an output that is fed to its own graph has two
// tensors, which take turns.
async function swap({ ready, spare }, inputs) {
  const given = new Set(Object.values(inputs));
  for (const [name, tensor] of ready) {
    if (tensor && given.has(tensor)) {
      ready.set(name, spare.get(name) ?? await device.allocate(tensor.type, tensor.dims));
      spare.set(name, tensor);
    }
  }
}

// Runs a graph once, with feeds by name and the graph's states; returns its outputs by name.
async function execute(entry, feeds, position) {
  const { session, stated, states, outputs } = entry;
  const inputs = { ...entry.constants, ...feeds };
  for (const [name, state] of states) inputs[name] = state.current;
  await swap(entry, inputs);
  const wanted = {};
  session.outputNames.forEach((name, index) => {
    const state = stated[index - outputs.length];
    const kept = state?.update === 'replace' ? states.get(state.name).next : null;
    wanted[name] = kept ?? entry.ready.get(name) ?? null;
  });
  const results = await session.run(inputs, wanted, { logSeverityLevel: 2 });
  const writes = [];
  session.outputNames.forEach((name, index) => {
    const state = stated[index - outputs.length];
    if (!state) {
      const last = entry.made.get(outputs[index]);
      if (last && last !== results[name] && !entry.ready.get(name)) last.dispose();
      entry.made.set(outputs[index], results[name]);
    } else if (state.update === 'replace') {
      const kept = states.get(state.name);
      [kept.current, kept.next] = [results[name], device.location === 'cpu' ? null : kept.current];
    } else writes.push({ cache: states.get(state.name), slice: results[name], axis: state.axis });
  });
  if (writes.length) await device.write(writes, position, entry.key);
  entry.run += 1;
  return entry.made;
}

function handled({ key, output, run }) {
  const entry = graphs.get(key);
  if (entry.run !== run) throw new Error(`${output} of ${key} is stale: its graph has run since`);
  return entry.made.get(output);
}

// Returns feeds by name: tensors of the message, or outputs that other graphs left on the device.
function fed({ feeds, tensors }) {
  return Object.fromEntries(feeds.map(({ name, tensor, handle }) => (
    [name, handle ? handled(handle) : cpuTensor(tensors[tensor])]
  )));
}

async function fetched(tensor) {
  return { dtype: tensor.type, dims: tensor.dims, data: await device.download(tensor) };
}

// Runs a graph step by step from its initial states; see Session.steps in contract/session.py.
// Feeds that are the same at every step are uploaded once. The values that are fetched at each step
// make one tensor in the end.
async function steps(entry, { count, prompt, along, carry, stop, fetch, ...call }) {
  const began = performance.now();
  await reset(entry);
  const feeds = fed(call);
  const uploaded = [];
  for (const { name, handle } of call.feeds) {
    if (!handle && device.location !== 'cpu') {
      const { type: dtype, dims, data } = feeds[name];
      uploaded.push(feeds[name] = await device.upload({ dtype, dims, data }));
    }
  }
  const sequences = along.map(({ name, tensor }) => {
    const { dtype, dims: [length, ...dims], data } = call.tensors[tensor];
    const at = (step) => data.subarray(step * size(dims), (step + 1) * size(dims));
    return { name, length, at, tensor: (step) => new ort.Tensor(dtype, at(step), dims) };
  });
  const positions = sequences.find(({ name }) => name === 'position');
  const still = call.feeds.find(({ name, handle }) => name === 'position' && !handle);
  const [fixed] = still ? call.tensors[still.tensor].data : [0];

  let first = 0;
  const kept = fetch.map(() => null);
  const keep = async (index, row, tensor) => {
    const { dtype, dims, data } = await fetched(tensor);
    if (row === 0) first = performance.now() - began;
    const most = [count - prompt, ...dims];
    kept[index] ??= { dtype, dims: most, data: new data.constructor(size(most)) };
    kept[index].data.set(data, row * size(dims));
  };
  const ended = [];
  const stopped = (output) => {
    const { dims: [, rows, ...rest], data } = kept[fetch.indexOf(stop.output)];
    const codes = size(rest);
    for (let row = 0; row < rows; row += 1) {
      const from = (output * rows + row) * codes;
      ended[row] ||= data.subarray(from, from + codes).every((code) => Number(code) === stop.value);
    }
    return ended.every(Boolean);
  };
  // Devices work in order, so that a step does not wait for the downloads of the step before it.
  // Only tokens are waited for: an application shows them as they come, or stops at one.
  const told = stop !== null || fetch.some((name) => Object.values(carry).includes(name));
  const ahead = told ? 1 : AHEAD;
  let pending = [];
  let step = 0;
  for (let over = false; !over; step += 1) {
    sequences.forEach(({ name, length, tensor }) => {
      if (step < length) feeds[name] = tensor(step);
    });
    const made = await execute(entry, feeds, positions ? positions.at(step)[0] : fixed);
    for (const [input, output] of Object.entries(carry)) feeds[input] = made.get(output);
    const row = step - prompt;
    over = step === count - 1;
    if (row >= 0) {
      fetch.forEach((name, index) => {
        pending.push(keep(index, row, entry.states.get(name)?.current ?? made.get(name)));
      });
      if (row % ahead === ahead - 1 || over) {
        await (fetch.length ? Promise.all(pending) : device.finish());
        pending = [];
      }
      over ||= stop !== null && stopped(row);
    }
  }
  uploaded.forEach((tensor) => device.free(tensor));
  const rows = step - prompt;
  return [{ first, count: step, run: entry.run }, kept.map(({ dtype, dims: [, ...dims], data }) => (
    { dtype, dims: [rows, ...dims], data: data.subarray(0, rows * size(dims)) }
  ))];
}

// Calls -------------------------------------------------------------------------------------------

const LIMITS = ['maxBufferSize', 'maxStorageBufferBindingSize', 'maxComputeWorkgroupStorageSize',
  'maxComputeInvocationsPerWorkgroup'];

async function adapterFacts() {
  const wanted = { powerPreference: 'high-performance' };
  // A browser may have the interface but refuse to use it (Firefox 140 on Linux): it throws.
  const adapter = await navigator.gpu?.requestAdapter(wanted).catch((error) => {
    console.warn(String(error));
  });
  if (!adapter) return null;
  const { vendor, architecture, device: model, description, isFallbackAdapter } = adapter.info;
  return {
    vendor, architecture, model, description,
    fallback: Boolean(isFallbackAdapter ?? adapter.isFallbackAdapter),
    features: [...adapter.features].sort(),
    limits: Object.fromEntries(LIMITS.map((name) => [name, adapter.limits[name]])),
  };
}

async function contextFacts() {
  const found = {};
  for (const deviceType of ['cpu', 'gpu', 'npu']) {
    try {
      const context = await navigator.ml.createContext({ deviceType });
      const limits = context.opSupportLimits();
      found[deviceType] = {
        operators: Object.values(limits)
          .filter((value) => typeof value === 'object' && !('dataTypes' in value)).length,
        inputs: limits.input.dataTypes,
      };
      context.destroy?.();
    } catch (error) {
      found[deviceType] = { absent: String(error.message ?? error) };
    }
  }
  return found;
}

const CALLS = {
  async look() {
    return [{
      agent: navigator.userAgent,
      isolated: crossOriginIsolated,
      webgpu: navigator.gpu ? await adapterFacts() : null,
      webnn: navigator.ml ? await contextFacts() : null,
    }];
  },

  async open({ bundle, options, threads, withheld, title }) {
    document.getElementById('title').textContent = title;
    ort = await import(`../ort/${bundle}`);
    ort.env.wasm.wasmPaths = new URL('../ort/', location.href).href;
    ort.env.wasm.numThreads = threads;
    ort.env.logLevel = 'verbose';
    provider = options;
    if (provider.name === 'webnn') {
      device = new Nn(await navigator.ml.createContext({ deviceType: provider.deviceType }));
      // ONNX Runtime asks the context what it supports, and leaves the rest to its own kernels.
      const limits = { ...device.context.opSupportLimits() };
      withheld.forEach((name) => { delete limits[name]; });
      if (withheld.length) device.context.opSupportLimits = () => limits;
      provider = { ...provider, context: device.context };
    } else device = provider.name === 'webgpu' ? new Gpu() : new Host();
    return [{ isolated: crossOriginIsolated, version: ort.env.versions.web }];
  },

  async compile(call) { return [await compile({ ...call, options: provider })]; },

  async run(call) {
    const entry = graphs.get(call.key);
    const made = await execute(entry, fed(call), call.position);
    const described = entry.outputs.map((name) => {
      const { type, dims } = made.get(name);
      return { name, type, dims };
    });
    return [{ run: entry.run, outputs: described },
      await Promise.all(call.fetch.map((name) => fetched(made.get(name))))];
  },

  async steps(call) { return steps(graphs.get(call.key), call); },

  async fetch({ handle }) { return [{}, [await fetched(handled(handle))]]; },

  async reset({ key }) {
    await reset(graphs.get(key));
    return [{}];
  },

  async snapshot({ key }) {
    const states = [...graphs.get(key).states];
    return [{ names: states.map(([name]) => name) },
      await Promise.all(states.map(([, { current }]) => fetched(current)))];
  },

  async restore({ key, names, tensors }) {
    const { states } = graphs.get(key);
    for (const [index, name] of names.entries()) {
      const state = states.get(name);
      if (device instanceof Host) state.current = device.upload(tensors[index]);
      else device.fill(state.current, tensors[index].data);
    }
    return [{}];
  },

  async spectrum(call) {
    const { spectrum } = await import('./spectrum.js');
    return spectrum(call);
  },

  async census() { return [{ ...alive }]; }, // For the tests.

  async crash() {
    // For the tests: what a faulty driver does to a GPU's device.
    device.device.destroy();
    return [{}];
  },
};

// Shows a person who watches which calls run, and their times. Results have numbers of their own.
const rows = new Map();
function show(what, ms, failed) {
  const row = rows.get(what) ?? { ms: [], failed };
  row.ms.push(ms);
  row.failed = failed;
  rows.set(what, row);
}

setInterval(() => {
  document.getElementById('ran').replaceChildren(...[...rows].map(([what, { ms, failed }]) => {
    const line = document.createElement('tr');
    const middle = ms.toSorted((a, b) => a - b)[ms.length >> 1];
    for (const text of [what, ms.length, ms.at(-1).toFixed(1), middle.toFixed(1)]) {
      line.appendChild(document.createElement('td')).textContent = text;
    }
    line.classList.toggle('failed', failed);
    return line;
  }));
}, SHOWN_EVERY);

async function answer(call) {
  const began = performance.now();
  let found;
  try {
    const [value, tensors] = await CALLS[call.call](call);
    await device?.finish();
    if (device?.faults?.length) throw new Error(device.faults.splice(0).join('; '));
    found = [{ ok: true, ...value }, tensors];
  } catch (error) {
    found = [{ ok: false, message: String(error?.message ?? error), stack: error?.stack ?? '' }];
  }
  const ms = performance.now() - began;
  show([call.call, call.key].filter(Boolean).join(' '), ms, !found[0].ok);
  return encode({ id: call.id, ms, lost: device?.lost ?? '', ...found[0] }, found[1]);
}

async function serve() {
  let last = new Uint8Array();
  for (;;) {
    const response = await fetch('exchange', { method: 'POST', body: last });
    if (!response.ok) throw new Error(`the server answered ${response.status}`);
    const call = response.status === 204 ? null : await response.arrayBuffer();
    last = call ? await answer(decode(call)) : new Uint8Array();
  }
}

serve();
