// A worker for pages opened from disk, where browsers start none: its script runs in a hidden frame of the page.
if (location.protocol === "file:") window.Worker = class extends EventTarget {
  constructor(url) {
    super()
    const frame = document.createElement("iframe")
    frame.hidden = true
    document.body.append(frame)
    this.inside = frame.contentWindow
    this.inside.postMessage = data => this.dispatchEvent(new MessageEvent("message", { data }))
    const script = this.inside.document.createElement("script")
    this.loaded = new Promise((resolve, reject) => {
      script.onload = resolve
      script.onerror = reject
    })
    script.src = new URL(url, location.href)
    this.inside.document.body.append(script)
  }

  postMessage(data) {
    this.loaded.then(() => this.inside.dispatchEvent(new MessageEvent("message", { data })))
  }

  terminate() {
    this.inside.frameElement.remove()
  }
}
