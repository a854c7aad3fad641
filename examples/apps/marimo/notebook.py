"""A notebook that computes for each visitor, and says what it finds over a websocket."""

import marimo

app = marimo.App()


@app.cell
def _():
    import marimo as mo

    return (mo,)


@app.cell
def _(mo):
    number = mo.ui.slider(1, 20, value=12, label="A number")
    number
    return (number,)


@app.cell
def _(mo, number):
    mo.md(f"The square of {number.value} is **{number.value**2}**.")
    return


if __name__ == "__main__":
    app.run()
